#ifndef ZENTRI_SD_JOURNAL_H
#define ZENTRI_SD_JOURNAL_H

int sd_journal_stream_fd(const char *identifier, int priority, int level_prefix);

#endif
