################################################################################
#
# zentri-listenfds
#
################################################################################

ZENTRI_LISTENFDS_SITE = $(BR2_EXTERNAL_ZENTRI_PATH)/package/zentri-listenfds/src
ZENTRI_LISTENFDS_SITE_METHOD = local
ZENTRI_LISTENFDS_INSTALL_STAGING = YES
ZENTRI_LISTENFDS_INSTALL_TARGET = NO

define ZENTRI_LISTENFDS_BUILD_CMDS
	$(TARGET_CC) $(TARGET_CFLAGS) -std=gnu11 -Wall -Wextra -Werror -fPIC -I$(@D) \
		-c $(@D)/listenfds.c -o $(@D)/listenfds.o
	rm -f $(@D)/libsystemd.a
	$(TARGET_AR) rcs $(@D)/libsystemd.a $(@D)/listenfds.o
endef

define ZENTRI_LISTENFDS_INSTALL_STAGING_CMDS
	$(INSTALL) -D -m 0644 $(@D)/libsystemd.a $(STAGING_DIR)/usr/lib/libsystemd.a
	$(INSTALL) -D -m 0644 $(@D)/libsystemd.pc $(STAGING_DIR)/usr/lib/pkgconfig/libsystemd.pc
	$(INSTALL) -d $(STAGING_DIR)/usr/include/systemd
	$(INSTALL) -m 0644 $(@D)/systemd/*.h $(STAGING_DIR)/usr/include/systemd/
endef

$(eval $(generic-package))
