/* A sample application: prints a line now and then, and crashes in the way that it is told. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NAME "sample-arm"
#define MAX_SECONDS 1000000.0
#define HOG_STEP_BYTES (4u << 20)

/* Functions that a backtrace shall show must stay functions. */
#define KEPT __attribute__((noinline, noclone))

static const char HELP[] =
    "usage: " NAME " [--interval SECONDS] [--crash HOW] [--after SECONDS]\n"
    "\n"
    "Prints a line every SECONDS (1), and crashes after SECONDS (3) if it is told HOW:\n"
    "  segv   writes to an address where nothing is\n"
    "  abort  calls abort()\n"
    "  raise  finds its data inconsistent in a nested function, and calls abort()\n"
    "  exit   ends with status 3\n"
    "  hog    takes memory until it is stopped\n";

struct reading {
    int number;
    double value;
};

static int *volatile nowhere; /* volatile, or the compiler would know better than to try */
static volatile int depth;

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void sleep_s(double seconds)
{
    struct timespec left = {(time_t)seconds, 0};

    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* A leaf: it calls nobody, so its caller stands in a register only. */
KEPT static void store_reading(volatile int *target, int value)
{
    *target = value;
}

KEPT static void crash_now(const char *how)
{
    depth++;
    if (strcmp(how, "segv") == 0) {
        store_reading(nowhere, depth);
    }
    abort();
}

KEPT static void check_reading(const struct reading *reading)
{
    if (reading->value < 0) {
        fprintf(stderr, NAME ": reading %d is %.1f, which cannot be\n", reading->number, reading->value);
        crash_now("abort");
    }
    depth++;
}

KEPT static void read_sensor(const char *how)
{
    struct reading reading = {depth, -1.0};

    if (strcmp(how, "raise") == 0) {
        check_reading(&reading);
    } else {
        crash_now(how);
    }
    depth++;
}

KEPT static void take_memory(void)
{
    size_t taken = 0;

    for (;;) {
        char *more = malloc(HOG_STEP_BYTES);

        if (more == NULL) {
            fprintf(stderr, NAME ": no more memory after %zu MiB\n", taken >> 20);
            exit(EXIT_FAILURE);
        }
        memset(more, 1, HOG_STEP_BYTES);
        taken += HOG_STEP_BYTES;
        sleep_s(0.02);
    }
}

KEPT static void do_crash(const char *how)
{
    fflush(stdout);
    if (strcmp(how, "exit") == 0) {
        exit(3);
    }
    if (strcmp(how, "hog") == 0) {
        take_memory();
    }
    read_sensor(how);
    depth++;
}

static double seconds_of(const char *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= 0 && value <= MAX_SECONDS)) {
        fprintf(stderr, NAME ": %s %s: write a number of seconds\n", option, text);
        exit(2);
    }
    return value;
}

static const char *way_of(const char *text)
{
    static const char *const ways[] = {"segv", "abort", "exit", "raise", "hog"};

    for (size_t n = 0; n < sizeof ways / sizeof *ways; n++) {
        if (strcmp(text, ways[n]) == 0) {
            return ways[n];
        }
    }
    fprintf(stderr, NAME ": --crash %s: choose segv, abort, exit, raise or hog\n", text);
    exit(2);
}

KEPT static void run(double interval_s, const char *how, double after_s)
{
    double start_s = now_s();

    for (unsigned long number = 1;; number++) {
        double left_s = start_s + after_s - now_s();

        if (how != NULL && left_s <= interval_s) {
            sleep_s(left_s > 0 ? left_s : 0);
            do_crash(how);
        }
        printf(NAME ": line %lu\n", number);
        fflush(stdout);
        sleep_s(interval_s);
    }
}

int main(int count, char **words)
{
    double interval_s = 1;
    double after_s = 3;
    const char *how = NULL;

    for (int n = 1; n < count; n += 2) {
        if (strcmp(words[n], "--help") == 0) {
            fputs(HELP, stdout);
            return 0;
        }
        if (n + 1 == count) {
            fprintf(stderr, NAME ": %s: unknown, or its value is missing; see --help\n", words[n]);
            return 2;
        }
        if (strcmp(words[n], "--interval") == 0) {
            interval_s = seconds_of(words[n], words[n + 1]);
        } else if (strcmp(words[n], "--after") == 0) {
            after_s = seconds_of(words[n], words[n + 1]);
        } else if (strcmp(words[n], "--crash") == 0) {
            how = way_of(words[n + 1]);
        } else {
            fprintf(stderr, NAME ": %s: unknown; see --help\n", words[n]);
            return 2;
        }
    }
    run(interval_s < 0.01 ? 0.01 : interval_s, how, after_s);
    return 0;
}
