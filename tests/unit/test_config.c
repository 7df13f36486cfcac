/* test_config.c - the server's settings: defaults, file, command line, and what is refused. */
#include "server/config.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *dir;

static int make_dir(void **state) {
    (void)state;
    dir = str_fmt("%s/mysti-config-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    setenv("XDG_DATA_HOME", mkdtemp(dir), 1);
    return 0;
}

static int remove_dir(void **state) {
    (void)state;
    char *command = str_fmt("rm -rf '%s'", dir);
    int rc = system(command);
    free(command);
    free(dir);
    return rc;
}

static bool load(config *c, const char *const *args, err *e) {
    char *argv[16] = {(char *)(uintptr_t) "mysti_server"};
    int argc = 1;
    for (; args[argc - 1]; argc++) argv[argc] = (char *)(uintptr_t)args[argc - 1];
    return config_load(c, argc, argv, e);
}

static void defaults_are_the_documented_ones(void **state) {
    (void)state;
    config c;
    err e = {0};
    assert_true(load(&c, (const char *[]){NULL}, &e));
    assert_string_equal(c.listen_ip, "127.0.0.1");
    assert_int_equal(c.listen_port, 1234);
    assert_true(path_is_dir(c.model_dir) && path_is_dir(c.output_dir) && path_is_dir(c.data_dir));
    assert_true(str_starts(c.data_dir, dir));
    config_free(&c);
}

static void command_line_wins_over_file(void **state) {
    (void)state;
    char *file = path_join(dir, "c.json");
    const char *text = "{\"listen-port\": 4000, \"threads\": 3, \"no-restore\": true, \"llm-model\": \"x.gguf\"}";
    config c;
    err e = {0};
    assert_true(file_write_atomic(file, text, strlen(text), &e));
    assert_true(load(&c, (const char *[]){"--config", file, "--listen-port=5000", "-lm", "y.gguf", NULL}, &e));
    assert_int_equal(c.listen_port, 5000);
    assert_int_equal(c.threads, 3);
    assert_true(c.no_restore);
    assert_string_equal(c.llm_model, "y.gguf");
    config_free(&c);
    free(file);
}

static void precisions_are_taken(void **state) {
    (void)state;
    static const char *const names[] = {"auto", "f32", "bf16", "int8"};
    for (int i = 0; i < 4; i++) {
        config c;
        err e = {0};
        assert_true(load(&c, (const char *[]){"--precision", names[i], NULL}, &e));
        assert_string_equal(c.precision, names[i]);
        config_free(&c);
    }
}

static void refused(const char *const *args, const char *why) {
    config c;
    err e = {0};
    assert_false(load(&c, args, &e));
    if (!strstr(e.msg, why)) fail_msg("'%s' does not say '%s'", e.msg, why);
    config_free(&c);
}

static void mistakes_are_named(void **state) {
    (void)state;
    refused((const char *[]){"--listen-prot", "1", NULL}, "did you mean '--listen-port'");
    refused((const char *[]){"--precision", "f16", NULL}, "--precision: must be auto, f32, bf16 or int8");
    refused((const char *[]){"--listen-port", "0", NULL}, "not between 1 and 65533");
    refused((const char *[]){"--listen-port", "65534", NULL}, "not between 1 and 65533");
    refused((const char *[]){"--listen-ip", "0.0.0.0", NULL}, "--api-key");
    refused((const char *[]){"--listen-ip", "0.0.0.0", "--api-key", "", NULL}, "--api-key: must not be empty");
    refused((const char *[]){"--ctx-size", "-1", NULL}, "--ctx-size: must be between 0");
    refused((const char *[]){"--config", "/nowhere.json", NULL}, "config file '/nowhere.json'");
    char *file = path_join(dir, "bad.json");
    const char *const texts[] = {"{\"listn-port\": 1}", "{\"model\": [1]}", "{", "[]"};
    const char *const whys[] = {"did you mean 'listen-port'", "model: expected a string", "not valid JSON",
                                "expected an object"};
    for (int i = 0; i < 4; i++) {
        err e = {0};
        assert_true(file_write_atomic(file, texts[i], strlen(texts[i]), &e));
        refused((const char *[]){"--config", file, NULL}, whys[i]);
    }
    free(file);
}

static void beyond_loopback_needs_a_decision(void **state) {
    (void)state;
    config c;
    err e = {0};
    assert_true(load(&c, (const char *[]){"-l", "0.0.0.0", "--api-key", "k", NULL}, &e));
    config_free(&c);
    assert_true(load(&c, (const char *[]){"-l", "0.0.0.0", "--no-auth", NULL}, &e));
    config_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_the_documented_ones),
        cmocka_unit_test(command_line_wins_over_file),
        cmocka_unit_test(precisions_are_taken),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(beyond_loopback_needs_a_decision),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
