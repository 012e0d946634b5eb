################################################################################
#
# zentrid
#
################################################################################

# Only the package's folder, never the whole checkout. It is copied without deleting: after a module was removed,
# `make zentrid-dirclean`.
ZENTRID_SITE = $(BR2_EXTERNAL_ZENTRI_PATH)/../zentrid
ZENTRID_SITE_METHOD = local
ZENTRID_DEPENDENCIES = python3
ZENTRID_FOLDER = $(TARGET_DIR)/usr/lib/python$(PYTHON3_VERSION_MAJOR)/site-packages/zentrid

# Pure Python: Buildroot compiles it with everything else when it finishes the target. The link is for programs that are
# started without site modules and so are told where the modules are: one path for every build.
define ZENTRID_INSTALL_TARGET_CMDS
	rm -rf $(ZENTRID_FOLDER)
	mkdir -p $(ZENTRID_FOLDER) $(TARGET_DIR)/usr/lib/python3
	cd $(@D) && find . -type f ! -path '*/__pycache__/*' ! -name '*.md' ! -name '.*' \
		-exec install -D -m 0644 {} $(ZENTRID_FOLDER)/{} \;
	ln -sfn ../python$(PYTHON3_VERSION_MAJOR)/site-packages $(TARGET_DIR)/usr/lib/python3/dist-packages
endef

$(eval $(generic-package))
