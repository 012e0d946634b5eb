################################################################################
#
# Zentri: its packages, and what it changes in those of Buildroot
#
################################################################################

include $(sort $(wildcard $(BR2_EXTERNAL_ZENTRI_PATH)/package/*/*.mk))

# The boot script becomes the ROM's default environment by the same code that makes it for the other build. The U-Boot
# fragment names the file relative to the source tree, as it does there.
define ZENTRI_UBOOT_ENVIRONMENT
	BOARD=$(BR2_ZENTRI_BOARD) $(BR2_EXTERNAL_ZENTRI_PATH)/board/common/hook environment \
		$(if $(BR2_ZENTRI_PRODUCTION),--production) $(@D)/zentri.env
endef
UBOOT_POST_PATCH_HOOKS += ZENTRI_UBOOT_ENVIRONMENT

# The recipe of dbus asks for systemd only on a system with systemd. Its options are read when it is configured, and its
# dependencies before this file, hence the rule.
ifeq ($(BR2_PACKAGE_ZENTRI_LISTENFDS),y)
DBUS_CONF_OPTS += --enable-systemd --without-systemdsystemunitdir --without-systemduserunitdir
$(DBUS_TARGET_CONFIGURE): | zentri-listenfds
endif

# Only the program, as in the other build: the ROM gets QEMU's own tree with the public key in it behind the program, and
# the target `all` refuses any tree but one from the stage before.
UBOOT_MAKE_TARGET = u-boot-nodtb.bin
