################################################################################
#
# python-pydbus
#
################################################################################

PYTHON_PYDBUS_VERSION = v0.6.0
PYTHON_PYDBUS_SITE = https://github.com/LEW21/pydbus.git
PYTHON_PYDBUS_SITE_METHOD = git
PYTHON_PYDBUS_SETUP_TYPE = setuptools
PYTHON_PYDBUS_LICENSE = LGPL-2.1+
PYTHON_PYDBUS_LICENSE_FILES = LICENSE

$(eval $(python-package))
