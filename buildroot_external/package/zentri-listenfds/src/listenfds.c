/*
 * The part of libsystemd's interface that D-Bus calls, for a system without systemd: a program is given its listening
 * sockets as numbers 3 and up, and told how many in LISTEN_FDS and for whom in LISTEN_PID (sd_listen_fds(3)). There is no
 * service manager to notify, no seats and no journal.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>
#include <systemd/sd-login.h>

#define MAX_FDS 64

static long number_of(const char *name)
{
	const char *text = getenv(name);
	char *end;
	long value;

	if (text == NULL || *text == '\0')
		return 0;
	errno = 0;
	value = strtol(text, &end, 10);
	return errno != 0 || *end != '\0' || value < 0 ? -EINVAL : value;
}

int sd_listen_fds(int unset_environment)
{
	long pid = number_of("LISTEN_PID"), count = number_of("LISTEN_FDS");

	if (unset_environment) {
		unsetenv("LISTEN_PID");
		unsetenv("LISTEN_FDS");
	}
	if (pid < 0 || count < 0 || count > MAX_FDS)
		return -EINVAL;
	if (pid != (long)getpid())
		return 0;
	for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + count; fd++) {
		int flags = fcntl(fd, F_GETFD);

		if (flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0)
			return -errno;
	}
	return (int)count;
}

static int option_of(int fd, int name, int *value)
{
	socklen_t size = sizeof(*value);

	return getsockopt(fd, SOL_SOCKET, name, value, &size) < 0 ? -errno : 0;
}

int sd_is_socket(int fd, int family, int type, int listening)
{
	struct stat about;
	int found, result;

	if (fstat(fd, &about) < 0)
		return -errno;
	if (!S_ISSOCK(about.st_mode))
		return 0;
	if (family != AF_UNSPEC) {
		if ((result = option_of(fd, SO_DOMAIN, &found)) < 0)
			return result;
		if (found != family)
			return 0;
	}
	if (type != 0) {
		if ((result = option_of(fd, SO_TYPE, &found)) < 0)
			return result;
		if (found != type)
			return 0;
	}
	if (listening >= 0) {
		if ((result = option_of(fd, SO_ACCEPTCONN, &found)) < 0)
			return result;
		if (!found != !listening)
			return 0;
	}
	return 1;
}

int sd_notify(int unset_environment, const char *state)
{
	(void)unset_environment;
	(void)state;
	return 0;
}

int sd_uid_get_seats(uid_t uid, int require_active, char ***seats)
{
	(void)uid;
	(void)require_active;
	(void)seats;
	return 0; /* on none */
}

int sd_journal_stream_fd(const char *identifier, int priority, int level_prefix)
{
	(void)identifier;
	(void)priority;
	(void)level_prefix;
	return -ENOSYS;
}
