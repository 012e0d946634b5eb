#ifndef ZENTRI_SD_DAEMON_H
#define ZENTRI_SD_DAEMON_H

#define SD_LISTEN_FDS_START 3

int sd_listen_fds(int unset_environment);
int sd_is_socket(int fd, int family, int type, int listening);
int sd_notify(int unset_environment, const char *state);

#endif
