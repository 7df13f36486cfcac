/* test_llm_api.c - OpenAI's requests to the worker's, the worker's events to OpenAI's answers. */
#include "server/llm_api.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool read(llm_request *r, llm_shape shape, const char *text, err *e) {
    yyjson_doc *doc = json_parse(text, strlen(text), e);
    assert_non_null(doc);
    json_in root = json_root(doc);
    bool ok = llm_request_read(r, shape, &root, e);
    yyjson_doc_free(doc);
    return ok;
}

/* The worker's request as a document, to look into. */
static yyjson_doc *worker_request(const llm_request *r) {
    const int32_t resume[] = {5, 6};
    buf out;
    buf_init(&out, 1 << 20);
    llm_request_write(r, "id", resume, 2, &out);
    err e = {0};
    yyjson_doc *doc = json_parse(out.data, out.len, &e);
    assert_non_null(doc);
    buf_free(&out);
    return doc;
}

static void chat_becomes_a_worker_request(void **state) {
    (void)state;
    llm_request r;
    err e = {0};
    assert_true(read(
        &r, LLM_CHAT,
        "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"seed\":7,\"stop\":\"\\n\","
        "\"max_completion_tokens\":9,\"temperature\":0,"
        "\"messages\":[{\"role\":\"developer\",\"content\":\"be \\\"brief\\\"\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}]}",
        &e));
    assert_true(r.stream && r.include_usage);
    assert_string_equal(r.model, "m");
    yyjson_doc *doc = worker_request(&r);
    yyjson_val *root = yyjson_doc_get_root(doc), *messages = yyjson_obj_get(root, "messages");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_arr_get(messages, 0), "role")), "system");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_arr_get(messages, 0), "content")), "be \"brief\"");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_arr_get(messages, 1), "content")), "ab");
    assert_int_equal(yyjson_get_int(yyjson_obj_get(root, "seed")), 7);
    assert_int_equal(yyjson_get_int(yyjson_obj_get(root, "max_tokens")), 9);
    assert_true(yyjson_get_num(yyjson_obj_get(root, "temperature")) == 0);
    assert_int_equal(yyjson_arr_size(yyjson_obj_get(root, "stop")), 1);
    assert_int_equal(yyjson_get_int(yyjson_arr_get(yyjson_obj_get(root, "resume"), 1)), 6);
    yyjson_doc_free(doc);
    llm_request_free(&r);
}

static void seeds_are_drawn_and_differ(void **state) {
    (void)state;
    llm_request a, b;
    err e = {0};
    assert_true(read(&a, LLM_COMPLETION, "{\"prompt\":\"x\"}", &e));
    assert_true(read(&b, LLM_COMPLETION, "{\"prompt\":[\"x\"]}", &e));
    assert_string_not_equal(a.params, b.params);
    assert_non_null(strstr(a.params, "\"max_tokens\":16")); /* OpenAI's default for completions */
    llm_request_free(&a);
    llm_request_free(&b);
}

static void mistakes_are_named(void **state) {
    (void)state;
    const struct {
        const char *body, *why;
    } cases[] = {
        {"{}", "messages: required"},
        {"{\"messages\":[]}", "messages: at least one"},
        {"{\"messages\":[1]}", "messages[0]: expected object"},
        {"{\"messages\":[{\"role\":\"x\",\"content\":\"\"}]}", "messages[0].role: 'x' is none of"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content: expected string"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "content[0].type: 'image_url' is not supported"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"temperature\":-1}",
         "temperature: -1 is not between 0 and 5"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"n\":2}", "n: 2 is not between"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"tools\":[{}]}", "tools: not supported"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}",
         "stop: at most 4"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"stream\":\"yes\"}", "stream: expected true or false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        llm_request r;
        err e = {0};
        if (read(&r, LLM_CHAT, cases[i].body, &e)) fail_msg("accepted: %s", cases[i].body);
        if (!strstr(e.msg, cases[i].why)) fail_msg("'%s' does not say '%s'", e.msg, cases[i].why);
    }
}

/* The JSON behind "data: ". */
static yyjson_doc *chunk(const buf *b) {
    assert_true(str_starts(buf_str(b), "data: ") && str_ends(buf_str(b), "\n\n"));
    err e = {0};
    yyjson_doc *doc = json_parse(b->data + 6, b->len - 8, &e);
    assert_non_null(doc);
    return doc;
}

static void chunks_have_openais_shape(void **state) {
    (void)state;
    llm_head h = {.shape = LLM_CHAT, .id = "chatcmpl-1", .created = 5, .model = "a \"b\""};
    buf out;
    buf_init(&out, 1 << 16);
    llm_write_text_chunk(&h, "line\nbreak", &out);
    yyjson_doc *doc = chunk(&out);
    yyjson_val *root = yyjson_doc_get_root(doc), *choice = yyjson_arr_get(yyjson_obj_get(root, "choices"), 0);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(root, "object")), "chat.completion.chunk");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(root, "model")), "a \"b\"");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_obj_get(choice, "delta"), "content")), "line\nbreak");
    assert_true(yyjson_is_null(yyjson_obj_get(choice, "finish_reason")));
    yyjson_doc_free(doc);

    buf_clear(&out);
    h.shape = LLM_COMPLETION;
    llm_write_last_chunk(&h, "length", &out);
    doc = chunk(&out);
    choice = yyjson_arr_get(yyjson_obj_get(yyjson_doc_get_root(doc), "choices"), 0);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(choice, "text")), "");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(choice, "finish_reason")), "length");
    yyjson_doc_free(doc);
    buf_free(&out);
}

static void whole_answers_carry_usage(void **state) {
    (void)state;
    llm_head h = {.shape = LLM_CHAT, .id = "chatcmpl-1", .created = 5, .model = "m"};
    llm_usage u = {.prompt_tokens = 3, .completion_tokens = 4};
    buf out;
    buf_init(&out, 1 << 16);
    llm_write_completion(&h, "hi", "stop", &u, &out);
    err e = {0};
    yyjson_doc *doc = json_parse(out.data, out.len, &e);
    yyjson_val *root = yyjson_doc_get_root(doc), *choice = yyjson_arr_get(yyjson_obj_get(root, "choices"), 0);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_obj_get(choice, "message"), "role")), "assistant");
    assert_int_equal(yyjson_get_int(yyjson_obj_get(yyjson_obj_get(root, "usage"), "total_tokens")), 7);
    yyjson_doc_free(doc);
    buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_becomes_a_worker_request),
        cmocka_unit_test(seeds_are_drawn_and_differ),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(chunks_have_openais_shape),
        cmocka_unit_test(whole_answers_carry_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
