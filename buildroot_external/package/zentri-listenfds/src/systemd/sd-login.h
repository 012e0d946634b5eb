#ifndef ZENTRI_SD_LOGIN_H
#define ZENTRI_SD_LOGIN_H

#include <sys/types.h>

int sd_uid_get_seats(uid_t uid, int require_active, char ***seats);

#endif
