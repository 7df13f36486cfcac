/* server_fixture.h - a temporary folder, a loop and a database, for the tests of the server's parts. */
#ifndef MYSTI_TESTS_SERVER_FIXTURE_H
#define MYSTI_TESTS_SERVER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "server/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    char dir[64];
    uv_loop_t loop;
    db *db;
} fixture;

static inline char *fixture_path(const fixture *f, const char *name) {
    return path_join(f->dir, name);
}

static inline void fixture_open_db(fixture *f) {
    err e = {0};
    char *path = fixture_path(f, "mysti.db");
    f->db = db_open(&f->loop, path, &e);
    if (!f->db) fail_msg("%s", e.msg);
    free(path);
}

static inline void fixture_init(fixture *f) {
    *f = (fixture){0};
    strcpy(f->dir, "/tmp/mysti-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(uv_loop_init(&f->loop), 0);
    fixture_open_db(f);
}

/* Until nothing is under way: the database holds the loop while it has work. */
static inline void fixture_spin(fixture *f) {
    uv_run(&f->loop, UV_RUN_DEFAULT);
}

static inline void fixture_close_db(fixture *f) {
    db_close(f->db);
    f->db = NULL;
    fixture_spin(f);
}

static inline void fixture_free(fixture *f) {
    if (f->db) fixture_close_db(f);
    fixture_spin(f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    char *command = str_fmt("rm -rf '%s'", f->dir);
    assert_int_equal(system(command), 0);
    free(command);
}

static inline void fixture_write(const fixture *f, const char *name, const void *data, size_t len) {
    char *path = fixture_path(f, name), *dir = path_dir(path);
    err e = {0};
    if (!path_make_dirs(dir, &e) || !file_write_atomic(path, data, len, &e)) fail_msg("%s", e.msg);
    free(dir);
    free(path);
}

static inline bool fixture_exists(const fixture *f, const char *name) {
    char *path = fixture_path(f, name);
    bool there = path_exists(path);
    free(path);
    return there;
}

/* Copies a file as it is at this moment, also one that another handle is writing: what kill -9 would leave. */
static inline void fixture_snapshot(const fixture *f, const char *from, const char *to) {
    char *path = fixture_path(f, from);
    buf data;
    err e = {0};
    buf_init(&data, 64 << 20);
    if (path_exists(path)) {
        if (!file_read(path, &data, &e)) fail_msg("%s", e.msg);
        fixture_write(f, to, buf_str(&data), data.len);
    }
    buf_free(&data);
    free(path);
}

#endif
