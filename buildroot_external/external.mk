################################################################################
#
# Zentri: its packages, and what the boot loader needs before it is configured
#
################################################################################

include $(sort $(wildcard $(BR2_EXTERNAL_ZENTRI_PATH)/package/*/*.mk))

# The boot script becomes the ROM's default environment by the same code that makes it for the other build. The U-Boot
# fragment names the file relative to the source tree, as it does there.
define ZENTRI_UBOOT_ENVIRONMENT
	$(BR2_EXTERNAL_ZENTRI_PATH)/board/virt/hook environment \
		$(if $(BR2_ZENTRI_PRODUCTION),--production) $(@D)/zentri.env
endef
UBOOT_POST_PATCH_HOOKS += ZENTRI_UBOOT_ENVIRONMENT
