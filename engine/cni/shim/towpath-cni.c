/* The CNI plugin that runtimes start: hands the call to the daemon and prints its answer.
 *
 * Owns: the way from stdin and CNI_* to the daemon's socket, and what is said when no daemon answers, or none takes the call:
 *   VERSION is answered here, always; DEL is written into the spool, which the daemon reads, and succeeds;
 *   STATUS fails with code 50, everything else with code 11 ("try again later").
 * Never: interprets the configuration beyond two paths, the network's name and the version, or runs a program.
 * Invariant: memory is bounded; whatever stands on stdin or in the environment ends in one JSON object and an exit code.
 *
 * The message is MAGIC, NAME=VALUE texts (with TOWPATH_ASKED, the moment) and an empty text, each ended by a zero byte, then stdin as it came.
 * The answer is the exit code as a digit, a newline, and what to print. An ADD is acknowledged once it was printed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SOCKET_PATH
#define SOCKET_PATH "/run/towpath/cni.sock"
#endif
#ifndef SPOOL_PATH
#define SPOOL_PATH "/var/lib/towpath/cni"
#endif
#define MAGIC "towpath-cni 1"
#define NEWEST "1.1.0"
#define SUPPORTED "[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]"

enum {
    MESSAGE_LIMIT = 128 * 1024,
    SPOOL_LIMIT = 4096, /* files */
    CONNECT_SECONDS = 3,
    TAKE_SECONDS = 10,    /* for a daemon to begin with the call: one that starts, or gives way to another */
    ANSWER_SECONDS = 100, /* for all of it: the daemon waits for others, and a delegated plugin has 20 */
    NAME_LIMIT = 128,
    INTERFACE_LIMIT = 15,
    NETWORK_LIMIT = 253,
    NETWORK_SHOWN = 100, /* of it in the name of a file, which holds 255 */
    CODE_ENVIRONMENT = 4,
    CODE_IO = 5,
    CODE_DECODING = 6,
    CODE_LATER = 11,
    CODE_NOT_AVAILABLE = 50,
};

static const char *const variables[] = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"};

static char message[MESSAGE_LIMIT];
static size_t text_at, message_size; /* where stdin begins, and where it ends */
static char answer[MESSAGE_LIMIT + 1];
static char version[16] = NEWEST;
static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)] = SOCKET_PATH;
static char spool_path[1024] = SPOOL_PATH;
static char network[NETWORK_LIMIT + 1]; /* its name; empty when there is none that can be part of a file's */

/* -- what is printed ------------------------------------------------------------------ */
static int print(const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(STDOUT_FILENO, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

/* `words` and `details` are ours and hold nothing that JSON would have to escape. */
static int fail(int code, const char *words, const char *details)
{
    char body[512];
    int size = snprintf(body, sizeof(body), "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n",
                        version, code, words, details);
    print(body, size < (int)sizeof(body) ? (size_t)size : sizeof(body) - 1);
    return 1;
}

/* -- what is read --------------------------------------------------------------------- */
static int append(const char *data, size_t size)
{
    if (size > MESSAGE_LIMIT - message_size)
        return -1;
    memcpy(message + message_size, data, size);
    message_size += size;
    return 0;
}

/* When this is asked for, by a clock that nobody sets, and in which boot: a deletion that waits in the spool is not
 * meant for what was added after it. */
static int put_moment(void)
{
    char boot[37] = "", text[96];
    struct timespec now;
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, boot, sizeof(boot) - 1);
    if (file >= 0)
        close(file);
    if (size != sizeof(boot) - 1 || clock_gettime(CLOCK_BOOTTIME, &now) < 0)
        return 0;
    snprintf(text, sizeof(text), "TOWPATH_ASKED=%s %lld", boot, now.tv_sec * 1000000000LL + now.tv_nsec);
    return append(text, strlen(text) + 1);
}

static int put_variables(void)
{
    if (append(MAGIC, sizeof(MAGIC)) < 0)
        return -1;
    for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) {
        const char *value = getenv(variables[i]);
        if (value == NULL)
            continue;
        if (append(variables[i], strlen(variables[i])) < 0 || append("=", 1) < 0 || append(value, strlen(value) + 1) < 0)
            return -1;
    }
    return put_moment() < 0 ? -1 : append("", 1);
}

static int read_text(void)
{
    text_at = message_size;
    for (;;) {
        if (message_size == MESSAGE_LIMIT) {
            char more;
            return read(STDIN_FILENO, &more, 1) == 0 ? 0 : -1;
        }
        ssize_t got = read(STDIN_FILENO, message + message_size, MESSAGE_LIMIT - message_size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            return 0;
        message_size += (size_t)got;
    }
}

/* The text of a string value under `key` of the outermost object, if it is one and fits without escapes. */
static void find(const char *key, char *value, size_t room)
{
    const char *at = message + text_at, *end = message + message_size;
    int depth = 0, is_key = 0, matched = 0;
    for (; at < end; at++) {
        char sign = *at;
        if (sign == '"') {
            const char *start = ++at;
            int escaped = 0;
            while (at < end && *at != '"') {
                escaped |= *at == '\\';
                at += *at == '\\' ? 2 : 1;
            }
            if (at >= end)
                return;
            size_t size = (size_t)(at - start);
            if (depth == 1 && matched && !is_key) {
                if (!escaped && size > 0 && size < room && memchr(start, 0, size) == NULL) {
                    memcpy(value, start, size);
                    value[size] = 0;
                }
                return;
            }
            matched = depth == 1 && is_key && !escaped && size == strlen(key) && memcmp(start, key, size) == 0;
        } else if (sign == '{' || sign == '[') {
            if (matched && depth == 1)
                return;
            depth++;
            is_key = depth == 1;
        } else if (sign == '}' || sign == ']') {
            depth--;
        } else if (sign == ':' && depth == 1) {
            is_key = 0;
        } else if (sign == ',' && depth == 1) {
            is_key = 1;
            matched = 0;
        }
    }
}

/* Takes over a version that can stand in JSON as it is; what it means is for the daemon to judge. */
static int find_version(void)
{
    char found[sizeof(version)] = "";
    find("cniVersion", found, sizeof(found));
    if (*found == 0)
        return -1;
    for (const char *sign = found; *sign; sign++)
        if ((*sign < '0' || *sign > '9') && *sign != '.')
            return -1;
    strcpy(version, found);
    return 0;
}

/* -- the daemon ----------------------------------------------------------------------- */
static int connect_daemon(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = CONNECT_SECONDS};
    int size = MESSAGE_LIMIT * 2;
    int daemon = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (daemon < 0)
        return -1;
    strcpy(address.sun_path, socket_path);
    setsockopt(daemon, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    setsockopt(daemon, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    while (connect(daemon, (struct sockaddr *)&address, sizeof(address)) < 0) {
        if (errno != EINTR) {
            close(daemon);
            return -1;
        }
    }
    return daemon;
}

static ssize_t receive(int daemon, int seconds)
{
    struct timeval patience = {.tv_sec = seconds};
    ssize_t got;
    setsockopt(daemon, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    do
        got = recv(daemon, answer, MESSAGE_LIMIT, 0);
    while (got < 0 && errno == EINTR);
    return got;
}

/* Whether somebody has read the message. A socket that a service manager holds takes it also when no daemon can start. */
static int is_taken(int daemon)
{
    int unread = 0;
    return ioctl(daemon, SIOCOUTQ, &unread) < 0 || unread == 0;
}

/* The size of the answer, or -1 when there is none. */
static ssize_t ask(int daemon)
{
    ssize_t got;
    do
        got = send(daemon, message, message_size, MSG_NOSIGNAL);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)message_size && errno != EPIPE) /* a daemon that turns us away has said why */
        return -1;
    got = receive(daemon, TAKE_SECONDS);
    if (got < 0 && errno == EAGAIN && is_taken(daemon))
        got = receive(daemon, ANSWER_SECONDS - TAKE_SECONDS);
    return got >= 2 && answer[0] >= '0' && answer[0] <= '9' && answer[1] == '\n' ? got : -1;
}

static int acknowledge(int daemon)
{
    return send(daemon, "ok", 2, MSG_NOSIGNAL) == 2 ? 0 : -1;
}

/* -- without the daemon --------------------------------------------------------------- */
static int is_name(const char *text, size_t limit, const char *also)
{
    if (text == NULL || *text == 0 || *text == '.' || *text == '-' || strlen(text) > limit)
        return 0;
    for (; *text; text++) {
        int is_letter = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') || (*text >= '0' && *text <= '9');
        if (!is_letter && strchr(also, *text) == NULL)
            return 0;
    }
    return 1;
}

static int count_files(int folder)
{
    int count = 0, copy = dup(folder);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    if (entries == NULL)
        return SPOOL_LIMIT;
    while (count < SPOOL_LIMIT && readdir(entries) != NULL)
        count++;
    closedir(entries);
    return count;
}

static int write_file(int folder, const char *name)
{
    int file = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return -1;
    ssize_t written = write(file, message, message_size);
    return (close(file) < 0 || written != (ssize_t)message_size) ? -1 : 0;
}

/* Remembers the deletion: a file that is whole or not there, under a name that leads nowhere else. */
static int remember(const char *container, const char *interface)
{
    char name[NETWORK_SHOWN + NAME_LIMIT + INTERFACE_LIMIT + 8], aside[32];
    snprintf(name, sizeof(name), "%.*s@%s@%s.del", NETWORK_SHOWN, network, container, interface);
    snprintf(aside, sizeof(aside), ".%ld", (long)getpid());
    int folder = open(spool_path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return -1;
    struct stat about;
    int is_ours = fstat(folder, &about) == 0 && about.st_uid == geteuid() && (about.st_mode & 022) == 0;
    int done = -1;
    if (is_ours && count_files(folder) < SPOOL_LIMIT) {
        unlinkat(folder, aside, 0);
        done = write_file(folder, aside);
        if (done == 0)
            done = renameat(folder, aside, folder, name);
        if (done < 0)
            unlinkat(folder, aside, 0);
    }
    close(folder);
    return done;
}

static int delete_later(void)
{
    const char *container = getenv("CNI_CONTAINERID"), *interface = getenv("CNI_IFNAME");
    if (!is_name(container, NAME_LIMIT, "_.-") || !is_name(interface, INTERFACE_LIMIT, "_.-@"))
        return fail(CODE_ENVIRONMENT, "CNI_CONTAINERID or CNI_IFNAME is missing or invalid", "a DEL needs both");
    if (!is_name(network, NETWORK_LIMIT, "_.-"))
        *network = 0;
    if (remember(container, interface) < 0)
        return fail(CODE_LATER, "the daemon does not answer, and the deletion could not be written down",
                    "start towpath, and see the folder cni in its state directory");
    return 0;
}

static int without_daemon(const char *command)
{
    if (strcmp(command, "DEL") == 0)
        return delete_later();
    if (strcmp(command, "STATUS") == 0)
        return fail(CODE_NOT_AVAILABLE, "the daemon does not answer", "start towpath run");
    return fail(CODE_LATER, "the daemon does not answer", "start towpath run");
}

/* -- the call ------------------------------------------------------------------------- */
static int tell_versions(void)
{
    char body[128];
    int size = snprintf(body, sizeof(body), "{\"cniVersion\":\"%s\",\"supportedVersions\":%s}\n", version, SUPPORTED);
    return print(body, (size_t)size) < 0;
}

int main(void)
{
    const char *command = getenv("CNI_COMMAND");
    signal(SIGPIPE, SIG_IGN);
    if (command == NULL || *command == 0) {
        return fail(CODE_ENVIRONMENT, "CNI_COMMAND is missing", "this program is started by a container runtime");
    }
    if (put_variables() < 0)
        return fail(CODE_ENVIRONMENT, "the CNI_* variables are too long", "CNI_ARGS or CNI_PATH");
    if (read_text() < 0)
        return fail(CODE_IO, "stdin cannot be read, or is too long", "a configuration has at most 128 KiB");
    int has_version = find_version();
    if (strcmp(command, "VERSION") == 0) {
        if (has_version < 0 && text_at != message_size)
            return fail(CODE_DECODING, "there is no cniVersion on stdin", "a JSON object is expected");
        return tell_versions();
    }
    find("socket", socket_path, sizeof(socket_path));
    find("spool", spool_path, sizeof(spool_path));
    find("name", network, sizeof(network));
    int daemon = connect_daemon();
    ssize_t size = daemon < 0 ? -1 : ask(daemon);
    if (size < 0)
        return without_daemon(command);
    if (print(answer + 2, (size_t)size - 2) < 0)
        return 1; /* unacknowledged, an ADD is taken back */
    if (strcmp(command, "ADD") == 0 && answer[0] == '0' && acknowledge(daemon) < 0) {
        return 1;
    }
    return answer[0] - '0';
}
