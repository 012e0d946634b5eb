################################################################################
#
# python-gpiod
#
################################################################################

PYTHON_GPIOD_VERSION = v2.2.4
PYTHON_GPIOD_SITE = https://github.com/brgl/libgpiod.git
PYTHON_GPIOD_SITE_METHOD = git
PYTHON_GPIOD_SETUP_TYPE = setuptools
PYTHON_GPIOD_LICENSE = LGPL-2.1+
PYTHON_GPIOD_LICENSE_FILES = LICENSES/LGPL-2.1-or-later.txt
# Not libgpiod itself: that is the package libgpiod2, which this one links against.
PYTHON_GPIOD_SUBDIR = bindings/python
PYTHON_GPIOD_DEPENDENCIES = host-python-packaging libgpiod2
PYTHON_GPIOD_ENV = LINK_SYSTEM_LIBGPIOD=1

$(eval $(python-package))
