/* schema.c - see schema.h. */
#include "server/schema.h"

/* images_fts indexes the text columns of images without a copy of them; the triggers keep it in step. Texts of an
 * entry never change, so there is no trigger for updates. */
static const char version_1[] =
    "CREATE TABLE recovery ("
    "  worker TEXT PRIMARY KEY,"
    "  request TEXT NOT NULL,"
    "  saved_ms INTEGER NOT NULL"
    ") WITHOUT ROWID;"

    "CREATE TABLE settings ("
    "  key TEXT PRIMARY KEY,"
    "  value TEXT NOT NULL" /* JSON */
    ") WITHOUT ROWID;"

    "CREATE TABLE jobs ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT," /* never used twice: file names and clients remember it */
    "  status TEXT NOT NULL CHECK (status IN ('queued','running','done','failed','cancelled','interrupted')),"
    "  params TEXT NOT NULL," /* JSON of image_params */
    "  init_image TEXT,"      /* of params: what uploads_collect() must keep */
    "  file_stem TEXT NOT NULL,"
    "  created_ms INTEGER NOT NULL,"
    "  started_ms INTEGER NOT NULL DEFAULT 0,"
    "  finished_ms INTEGER NOT NULL DEFAULT 0,"
    "  attempts INTEGER NOT NULL DEFAULT 0,"
    "  deaths INTEGER NOT NULL DEFAULT 0,"
    "  error_code TEXT,"
    "  error TEXT"
    ");"
    "CREATE INDEX jobs_open ON jobs (id) WHERE status IN ('queued','running','interrupted');"
    "CREATE INDEX jobs_status ON jobs (status, id);"

    "CREATE TABLE images ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  file TEXT NOT NULL UNIQUE,"
    "  thumb TEXT,"
    "  width INTEGER NOT NULL,"
    "  height INTEGER NOT NULL,"
    "  seed INTEGER NOT NULL,"
    "  model TEXT NOT NULL,"
    "  prompt TEXT NOT NULL,"
    "  negative_prompt TEXT NOT NULL,"
    "  parameters TEXT NOT NULL," /* A1111 text */
    "  params TEXT NOT NULL,"     /* JSON of image_params */
    "  job INTEGER REFERENCES jobs (id) ON DELETE SET NULL,"
    "  job_index INTEGER NOT NULL,"
    "  created_ms INTEGER NOT NULL,"
    "  bytes INTEGER NOT NULL,"
    "  missing INTEGER NOT NULL DEFAULT 0" /* the file was not there at the last look */
    ");"
    "CREATE INDEX images_job ON images (job, job_index);"
    "CREATE INDEX images_shown ON images (id) WHERE missing = 0;"

    "CREATE VIRTUAL TABLE images_fts USING fts5 ("
    "  prompt, negative_prompt, model, content = 'images', content_rowid = 'id');"
    "CREATE TRIGGER images_fts_insert AFTER INSERT ON images BEGIN"
    "  INSERT INTO images_fts (rowid, prompt, negative_prompt, model)"
    "  VALUES (new.id, new.prompt, new.negative_prompt, new.model);"
    "END;"
    "CREATE TRIGGER images_fts_delete AFTER DELETE ON images BEGIN"
    "  INSERT INTO images_fts (images_fts, rowid, prompt, negative_prompt, model)"
    "  VALUES ('delete', old.id, old.prompt, old.negative_prompt, old.model);"
    "END;"

    "CREATE TABLE models ("
    "  path TEXT PRIMARY KEY,"
    "  size INTEGER NOT NULL,"
    "  mtime_ms INTEGER NOT NULL,"
    "  type TEXT NOT NULL,"
    "  family TEXT,"
    "  quantization TEXT,"
    "  supported INTEGER NOT NULL,"
    "  reason TEXT"
    ") WITHOUT ROWID;";

/* See crashes.h. */
static const char version_2[] = "CREATE TABLE crashes ("
                                "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
                                "  at_ms INTEGER NOT NULL,"
                                "  worker TEXT NOT NULL,"
                                "  pid INTEGER NOT NULL,"
                                "  cause TEXT NOT NULL,"
                                "  signal INTEGER,"
                                "  exit_code INTEGER NOT NULL,"
                                "  oom INTEGER NOT NULL,"
                                "  model TEXT,"
                                "  job TEXT,"
                                "  lines TEXT NOT NULL"
                                ");";

/* What models say of themselves; all files are read anew for it. */
static const char version_3[] = "ALTER TABLE models ADD COLUMN title TEXT;"
                                "ALTER TABLE models ADD COLUMN examples TEXT;"
                                "ALTER TABLE models ADD COLUMN width INTEGER NOT NULL DEFAULT 0;"
                                "ALTER TABLE models ADD COLUMN height INTEGER NOT NULL DEFAULT 0;"
                                "DELETE FROM models;";

static const char version_4[] = "ALTER TABLE crashes ADD COLUMN backtrace TEXT NOT NULL DEFAULT '';";

/* Which MODEL_READER wrote a row: what another version said of a file may be wrong by now. */
static const char version_5[] = "ALTER TABLE models ADD COLUMN reader INTEGER NOT NULL DEFAULT 0;";

static const char version_6[] = "ALTER TABLE models ADD COLUMN alias TEXT;";

/* Whether an upload is needed is told from the parameters, which may name several. */
static const char version_7[] = "ALTER TABLE jobs DROP COLUMN init_image;";

const char *const schema_migrations[] = {version_1, version_2, version_3, version_4, version_5, version_6, version_7};
const int schema_version = sizeof schema_migrations / sizeof *schema_migrations;
