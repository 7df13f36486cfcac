/* Words from the gallery's search box: whatever is typed, SQLite must take it as words and not as syntax. */
#include "server/history.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static sqlite3 *open_index(void) {
    sqlite3 *sql;
    if (sqlite3_open(":memory:", &sql) != SQLITE_OK) abort();
    const char *setup = "CREATE VIRTUAL TABLE t USING fts5 (prompt, model);"
                        "INSERT INTO t VALUES ('a red fox AND an owl', 'tiny'), ('gr\xc3\xbcn \"quoted\"', 'big');";
    if (sqlite3_exec(sql, setup, NULL, NULL, NULL) != SQLITE_OK) abort();
    return sql;
}

static void search(sqlite3 *sql, const char *match) {
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(sql, "SELECT count(*) FROM t WHERE t MATCH ?", -1, &s, NULL) != SQLITE_OK) abort();
    sqlite3_bind_text(s, 1, match, -1, SQLITE_TRANSIENT);
    if (sqlite3_step(s) != SQLITE_ROW) {
        fprintf(stderr, "%s: %s\n", match, sqlite3_errmsg(sql));
        abort();
    }
    sqlite3_finalize(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static sqlite3 *sql; /* one for all runs */
    if (!sql) sql = open_index();
    char *text = malloc(size + 1);
    if (!text) abort();
    memcpy(text, data, size);
    text[size] = 0;
    buf match;
    buf_init(&match, 4096);
    if (history_fts_query(text, &match)) search(sql, buf_str(&match));
    buf_free(&match);
    free(text);
    return 0;
}
