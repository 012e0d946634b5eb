################################################################################
#
# python-zstandard
#
################################################################################

PYTHON_ZSTANDARD_VERSION = 0.25.0
PYTHON_ZSTANDARD_SITE = https://github.com/indygreg/python-zstandard.git
PYTHON_ZSTANDARD_SITE_METHOD = git
PYTHON_ZSTANDARD_SETUP_TYPE = setuptools
PYTHON_ZSTANDARD_LICENSE = BSD-3-Clause
PYTHON_ZSTANDARD_LICENSE_FILES = LICENSE zstd/LICENSE
# Its own copy of the Zstandard library is part of the source.
PYTHON_ZSTANDARD_DEPENDENCIES = host-python-cffi host-python-packaging
# It asks for a newer setuptools than it needs.
PYTHON_ZSTANDARD_BUILD_OPTS = --skip-dependency-check

$(eval $(python-package))
