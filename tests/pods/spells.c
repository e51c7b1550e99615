/* A pod in C by docs/pod-protocol.md, of one lane: it answers `shout`, streams `spell` and ends at `crash`.
 *
 * Its JSON is what its tests send: one text without escapes. */
#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int lane;
static char incarnation[256];

static void read_all(void *to, size_t count) {
    for (char *at = to; count > 0;) {
        ssize_t got = read(lane, at, count);
        if (got <= 0) exit(0); /* the host is gone */
        at += got, count -= got;
    }
}

static void write_all(const void *from, size_t count) {
    for (const char *at = from; count > 0;) {
        ssize_t put = write(lane, at, count);
        if (put <= 0) exit(0);
        at += put, count -= put;
    }
}

static void send_frame(uint64_t ask, const char *json) {
    uint32_t head[4] = {htonl(strlen(json)), 0, htonl(ask >> 32), htonl((uint32_t)ask)};
    write_all(head, sizeof head);
    write_all(json, strlen(json));
}

/* The text of a field, at most `room` bytes of it with its end; empty where there is none. */
static void field(const char *json, const char *name, char *to, size_t room) {
    char key[64];
    snprintf(key, sizeof key, "\"%s\":\"", name);
    const char *at = strstr(json, key);
    size_t length = 0;
    for (at = at ? at + strlen(key) : ""; *at && *at != '"' && length + 1 < room; at++) to[length++] = *at;
    to[length] = 0;
}

static void work(uint64_t ask, const char *json) {
    char operation[32], text[1024], out[2048];
    field(json, "operation", operation, sizeof operation);
    field(json, "text", text, sizeof text);
    if (!strcmp(operation, "crash")) {
        fprintf(stderr, "about to crash\n");
        abort();
    }
    for (char *at = text; *at; at++) {
        *at = toupper((unsigned char)*at);
        if (!strcmp(operation, "spell")) {
            snprintf(out, sizeof out, "{\"type\":\"chunk\",\"data\":{\"letter\":\"%c\"}}", *at);
            send_frame(ask, out);
        }
    }
    snprintf(out, sizeof out, "{\"type\":\"answer\",\"incarnation\":\"%s\",\"output\":{\"text\":\"%s\"},\"blobs\":[]}", incarnation, text);
    send_frame(ask, out);
}

int main(void) {
    char out[256], type[32];
    lane = fcntl(0, F_DUPFD_CLOEXEC, 3);
    int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, 0);
    snprintf(out, sizeof out, "{\"type\":\"hello\",\"protocol\":[1,1],\"features\":[],\"pid\":%d,\"runtime\":\"c\"}", getpid());
    send_frame(0, out);
    for (;;) {
        uint32_t head[4];
        read_all(head, sizeof head);
        size_t json_bytes = ntohl(head[0]), tail_bytes = ntohl(head[1]);
        uint64_t ask = (uint64_t)ntohl(head[2]) << 32 | ntohl(head[3]);
        char *json = calloc(1, json_bytes + tail_bytes + 1);
        if (!json) return 1;
        read_all(json, json_bytes + tail_bytes);
        json[json_bytes] = 0;
        field(json, "type", type, sizeof type);
        if (!strcmp(type, "start")) {
            field(json, "incarnation", incarnation, sizeof incarnation);
            send_frame(0, "{\"type\":\"started\"}");
        } else if (!strcmp(type, "load")) {
            send_frame(0, "{\"type\":\"ready\"}");
        } else if (!strcmp(type, "ping")) {
            const char *seq = strstr(json, "\"seq\":");
            snprintf(out, sizeof out, "{\"type\":\"pong\",\"seq\":%ld,\"asks\":0}", seq ? atol(seq + 6) : 0);
            send_frame(0, out);
        } else if (!strcmp(type, "ask")) {
            work(ask, json);
        } else if (!strcmp(type, "drain") || !strcmp(type, "exit")) {
            return 0;
        }
        free(json);
    }
}
