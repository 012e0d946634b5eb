################################################################################
#
# python-tuf
#
################################################################################

PYTHON_TUF_VERSION = v5.1.0
PYTHON_TUF_SITE = https://github.com/theupdateframework/python-tuf.git
PYTHON_TUF_SITE_METHOD = git
PYTHON_TUF_SETUP_TYPE = hatch
PYTHON_TUF_LICENSE = Apache-2.0 or MIT
PYTHON_TUF_LICENSE_FILES = LICENSE LICENSE-MIT

$(eval $(python-package))
