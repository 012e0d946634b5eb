################################################################################
#
# python-securesystemslib
#
################################################################################

PYTHON_SECURESYSTEMSLIB_VERSION = v1.2.0
PYTHON_SECURESYSTEMSLIB_SITE = https://github.com/secure-systems-lab/securesystemslib.git
PYTHON_SECURESYSTEMSLIB_SITE_METHOD = git
PYTHON_SECURESYSTEMSLIB_SETUP_TYPE = hatch
PYTHON_SECURESYSTEMSLIB_LICENSE = MIT
PYTHON_SECURESYSTEMSLIB_LICENSE_FILES = LICENSE

$(eval $(python-package))
