/* The engine on a tiny model: what a request gives, alone, beside others, taken up again, cut off, cancelled.
 *
 * All comparisons of text are exact. What several slots compute together is rounded differently from what one computes
 * alone (see engine.h), so runs side by side are compared with the same runs side by side. */
#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "llm/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <ggml-backend.h>
#include <llama.h>
#include <unistd.h>

enum { CTX = 256, SLOTS = 3 };

static const char *model_path;

/* ---- one request and what came of it ---- */

typedef struct answer {
    uint64_t id;
    buf text;
    int32_t ids[CTX * 2];
    size_t count;
    int starts, ends, events;
    llm_finish why;
    llm_usage started, usage;
    err e;
    bool behind; /* the reader is not ready */
} answer;

static void on_start(void *ctx, const llm_usage *u) {
    answer *a = ctx;
    a->starts++;
    a->started = *u;
}

static void on_tokens(void *ctx, const int32_t *ids, size_t count, const char *text, size_t len) {
    answer *a = ctx;
    assert_int_equal(a->starts, 1);
    assert_int_equal(a->ends, 0);
    assert_true(str_is_utf8(text, len));
    assert_true(a->count + count <= sizeof a->ids / sizeof *a->ids);
    if (count) memcpy(a->ids + a->count, ids, count * sizeof *ids);
    a->count += count;
    a->events++;
    buf_append(&a->text, text, len);
}

static void on_done(void *ctx, llm_finish why, const llm_usage *u) {
    answer *a = ctx;
    a->ends++;
    a->why = why;
    a->usage = *u;
}

static void on_failed(void *ctx, const err *e) {
    answer *a = ctx;
    a->ends++;
    a->e = *e;
}

static bool on_ready(void *ctx) {
    return !((answer *)ctx)->behind;
}

static void answer_init(answer *a) {
    *a = (answer){0};
    buf_init(&a->text, 1 << 20);
}

static void answer_free(answer *a) {
    buf_free(&a->text);
}

static llm_sink sink_of(answer *a) {
    return (llm_sink){
        .started = on_start, .tokens = on_tokens, .done = on_done, .failed = on_failed, .ready = on_ready, .ctx = a};
}

static void submit(llm_engine *m, answer *a, const llm_request *r) {
    err e;
    llm_sink sink = sink_of(a);
    answer_init(a);
    a->id = llm_engine_submit(m, r, &sink, &e);
    if (!a->id) fail_msg("%s", e.msg);
}

static void run_until_idle(llm_engine *m) {
    for (int i = 0; llm_engine_step(m); i++) assert_true(i < 100000);
}

static void run(llm_engine *m, answer *a, const llm_request *r) {
    submit(m, a, r);
    run_until_idle(m);
    assert_int_equal(a->ends, 1);
    assert_int_equal(a->e.code, ERR_NONE);
}

static llm_engine *open_slots(int slots) {
    err e;
    llm_options o = {.n_ctx = CTX, .threads = 1, .slots = slots};
    llm_engine *m = llm_engine_open(model_path, &o, NULL, &e);
    if (!m) fail_msg("%s", e.msg);
    return m;
}

static llm_request ask(const char *prompt, int max_tokens, float temperature) {
    llm_request r = llm_request_default();
    r.prompt = prompt;
    r.max_tokens = max_tokens;
    r.temperature = temperature;
    r.seed = 11;
    r.ignore_eos = true;
    return r;
}

/* More than two chunks. */
static const char LONG_PROMPT[] =
    "a harbour in the mist at dawn, with boats and birds over the water, and a lighthouse on "
    "the rocks; behind it mountains, a bridge, an old library, trees in the wind, "
    "xylophones and zeppelins spelled by letters";

/* ---- tests ---- */

static void describe_tells_the_model(void **state) {
    (void)state;
    llm_engine *m = open_slots(SLOTS);
    const llm_info *i = llm_engine_describe(m);
    assert_string_equal(i->architecture, "llama");
    assert_int_equal(i->n_ctx, CTX);
    assert_int_equal(i->n_ctx_train, 512);
    assert_int_equal(i->slots, SLOTS);
    assert_true(i->chat_template);
    assert_true(i->parameters > 500000 && i->parameters < 1000000);
    llm_engine_close(m, NULL);

    err e;
    llm_options o = {.n_ctx = 0, .threads = 1, .slots = 1};
    m = llm_engine_open(model_path, &o, NULL, &e);
    assert_non_null(m);
    assert_int_equal(llm_engine_describe(m)->n_ctx, 512);
    llm_engine_close(m, NULL);
}

/* The same request twice in one engine (the second time with a cached prompt) and once in another. */
static void same_request_same_text(void **state) {
    (void)state;
    for (int warm = 0; warm < 2; warm++) {
        llm_request r = ask(LONG_PROMPT, 60, warm ? 1.0f : 0.0f);
        answer a, b, c;
        llm_engine *m = open_slots(SLOTS);
        run(m, &a, &r);
        run(m, &b, &r);
        llm_engine_close(m, NULL);
        m = open_slots(1);
        run(m, &c, &r);
        llm_engine_close(m, NULL);
        assert_int_equal(a.usage.completion_tokens, 60);
        assert_int_equal(a.count, 60);
        assert_int_equal(a.why, LLM_LENGTH);
        assert_true(a.text.len > 60);
        assert_int_equal(a.started.cached_tokens, 0);
        assert_true(b.started.cached_tokens >= 2 * LLM_CHUNK);
        assert_int_equal(b.started.cached_tokens % LLM_CHUNK, 0);
        assert_string_equal(buf_str(&a.text), buf_str(&b.text));
        assert_string_equal(buf_str(&a.text), buf_str(&c.text));
        answer_free(&a), answer_free(&b), answer_free(&c);
    }
}

static void another_seed_another_text(void **state) {
    (void)state;
    llm_engine *m = open_slots(1);
    llm_request r = ask("a", 40, 1.0f);
    answer a, b;
    run(m, &a, &r);
    r.seed++;
    run(m, &b, &r);
    assert_string_not_equal(buf_str(&a.text), buf_str(&b.text));
    answer_free(&a), answer_free(&b);
    llm_engine_close(m, NULL);
}

/* A stream that broke off after any number of tokens goes on as if it had not, in a fresh engine and in a used one. */
static void resume_goes_on_identically(void **state) {
    (void)state;
    for (int warm = 0; warm < 2; warm++) {
        llm_request r = ask(LONG_PROMPT, 50, warm ? 1.2f : 0.0f);
        r.repeat_penalty = 1.1f;
        answer whole;
        llm_engine *m = open_slots(SLOTS);
        run(m, &whole, &r);
        for (size_t cut = 1; cut < whole.count; cut += 8) {
            llm_engine *other = cut % 3 ? open_slots(1) : m;
            answer rest;
            r.resume = whole.ids;
            r.resume_count = cut;
            run(other, &rest, &r);
            assert_int_equal(rest.count, whole.count - cut);
            assert_memory_equal(rest.ids, whole.ids + cut, rest.count * sizeof *rest.ids);
            assert_true(whole.text.len >= rest.text.len);
            assert_string_equal(buf_str(&whole.text) + whole.text.len - rest.text.len, buf_str(&rest.text));
            assert_int_equal(rest.usage.completion_tokens, whole.usage.completion_tokens);
            assert_int_equal(rest.usage.prompt_tokens, whole.usage.prompt_tokens);
            answer_free(&rest);
            if (other != m) llm_engine_close(other, NULL);
        }
        r.resume_count = 0;
        r.resume = NULL;
        llm_engine_close(m, NULL);
        answer_free(&whole);
    }
}

/* A reader who has events 1..k, and asks again with their ids, has the whole text with what comes then: also where a
 * character or a stop string was being held back. */
static void resume_at_every_event_keeps_the_text(void **state) {
    (void)state;
    const char *stops[] = {"golden hour. an", "\xC3\xA9 on"};
    llm_engine *m = open_slots(1);
    llm_request r = ask("a small", 60, 0.9f);
    r.stop = stops;
    r.stop_count = 2;
    answer whole;
    run(m, &whole, &r);
    for (size_t cut = 0; cut <= whole.count; cut++) {
        answer had, rest;
        llm_request first = r;
        submit(m, &had, &first);
        while (!had.ends && had.count < cut) llm_engine_step(m);
        if (!had.ends) { /* the process dies here: what was held back is lost with it */
            buf before;
            buf_init(&before, 1 << 20);
            buf_append(&before, buf_str(&had.text), had.text.len);
            size_t count = had.count;
            llm_engine_cancel(m, had.id);
            llm_request again = r;
            again.resume = had.ids;
            again.resume_count = count;
            run(m, &rest, &again);
            buf_append(&before, buf_str(&rest.text), rest.text.len);
            assert_string_equal(buf_str(&before), buf_str(&whole.text));
            assert_int_equal(rest.why, whole.why);
            answer_free(&rest);
            buf_free(&before);
        }
        answer_free(&had);
    }
    answer_free(&whole);
    llm_engine_close(m, NULL);
}

static void stop_strings_end_the_text(void **state) {
    (void)state;
    llm_engine *m = open_slots(1);
    llm_request r = ask("a", 60, 0);
    answer free_run, cut;
    run(m, &free_run, &r);
    const char *text = buf_str(&free_run.text);
    assert_true(strlen(text) > 40);
    char stop[13] = {0};
    memcpy(stop, text + 20, 12); /* certainly across token borders: no token of the model is that long */
    const char *stops[] = {"never seen", stop};
    r.stop = stops;
    r.stop_count = 2;
    run(m, &cut, &r);
    assert_int_equal(cut.why, LLM_STOP);
    size_t first = (size_t)(strstr(text, stop) - text);
    assert_int_equal(cut.text.len, first);
    assert_memory_equal(buf_str(&cut.text), text, first);
    assert_true(cut.usage.completion_tokens < 60);
    assert_int_equal(cut.usage.completion_tokens, cut.count);
    answer_free(&free_run), answer_free(&cut);
    llm_engine_close(m, NULL);
}

/* The model spells "café" with a byte per half of its last letter; resuming in the middle must not break it. */
static void characters_across_tokens(void **state) {
    (void)state;
    err e;
    llm_engine *m = open_slots(1);
    int32_t *ids;
    size_t count;
    assert_true(llm_engine_tokenize(m, " caf\xC3\xA9", false, &ids, &count, &e));
    assert_int_equal(count, 3); /* " caf", C3, A9 */
    answer a;
    llm_request r = ask("a small", 40, 0);
    r.resume = ids;
    r.resume_count = 2; /* up to the half letter */
    run(m, &a, &r);
    /* Either the model goes on with the second half, or the broken half shows as U+FFFD; never as a bare byte. */
    assert_true(str_is_utf8(buf_str(&a.text), a.text.len));
    assert_int_equal(a.ids[0], ids[2]);
    assert_memory_equal(buf_str(&a.text), "\xC3\xA9", 2);
    answer_free(&a);
    free(ids);
    llm_engine_close(m, NULL);
}

/* Several at once: each gets its own stream, and the same company gives the same streams again. */
static void side_by_side(void **state) {
    (void)state;
    const char *prompts[SLOTS] = {"a red fox", LONG_PROMPT, "portrait"};
    answer first[SLOTS], second[SLOTS];
    for (int pass = 0; pass < 2; pass++) {
        answer *a = pass ? second : first;
        llm_engine *m = open_slots(SLOTS);
        for (int i = 0; i < SLOTS; i++) {
            llm_request r = ask(prompts[i], 40 + 10 * i, 0.7f);
            submit(m, &a[i], &r);
        }
        assert_true(llm_engine_step(m));
        assert_int_equal(llm_engine_load(m).running, SLOTS);
        run_until_idle(m);
        llm_engine_close(m, NULL);
    }
    for (int i = 0; i < SLOTS; i++) {
        assert_int_equal(first[i].usage.completion_tokens, 40 + 10 * i);
        assert_string_equal(buf_str(&first[i].text), buf_str(&second[i].text));
        for (int k = 0; k < i; k++) assert_string_not_equal(buf_str(&first[i].text), buf_str(&first[k].text));
        answer_free(&first[i]), answer_free(&second[i]);
    }
}

/* The prompt is computed in the same way whoever else is at work: a neighbour who is done when the answer begins
 * leaves no trace in it. */
static void a_neighbour_does_not_change_the_prompt(void **state) {
    (void)state;
    llm_request r = ask(LONG_PROMPT, 40, 1.0f), neighbour = ask("the storm", 1, 1.0f);
    answer alone, beside, other;
    llm_engine *m = open_slots(2);
    run(m, &alone, &r);
    llm_engine_close(m, NULL);
    m = open_slots(2);
    submit(m, &other, &neighbour);
    submit(m, &beside, &r);
    run_until_idle(m);
    assert_string_equal(buf_str(&alone.text), buf_str(&beside.text));
    answer_free(&alone), answer_free(&beside), answer_free(&other);
    llm_engine_close(m, NULL);
}

static void more_than_slots_wait_in_order(void **state) {
    (void)state;
    enum { N = 7 };
    llm_engine *m = open_slots(2);
    answer a[N];
    for (int i = 0; i < N; i++) {
        llm_request r = ask("a", 8 + i, 1.0f);
        submit(m, &a[i], &r);
    }
    int began = 0;
    while (llm_engine_step(m)) {
        int now = 0;
        for (int i = 0; i < N; i++) {
            now += a[i].starts;
            if (a[i].starts && i) assert_int_equal(a[i - 1].starts, 1);
        }
        assert_true(now >= began && llm_engine_load(m).running <= 2);
        began = now;
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(a[i].ends, 1);
        assert_int_equal(a[i].count, 8 + i);
        answer_free(&a[i]);
    }
    llm_engine_close(m, NULL);
}

/* Prompts are read one after the other: the first to come begins its answer first, in whichever slot it is. */
static void the_oldest_prompt_is_read_first(void **state) {
    (void)state;
    llm_engine *m = open_slots(SLOTS);
    answer a, b;
    const char *prompts[] = {LONG_PROMPT + 2, LONG_PROMPT + 4};
    llm_request first = ask(prompts[0], 3, 0), second = ask(prompts[1], 3, 0);
    for (int turn = 0; turn < SLOTS; turn++) { /* the slots take turns, so the older one is not always the left one */
        submit(m, &a, &first);
        submit(m, &b, &second);
        while (!a.events && !b.events) assert_true(llm_engine_step(m));
        assert_true(a.events > 0 && b.events == 0);
        run_until_idle(m);
        answer_free(&a), answer_free(&b);
    }
    llm_engine_close(m, NULL);
}

static void penalties_see_the_prompt(void **state) {
    (void)state;
    llm_engine *m = open_slots(1);
    answer plain, penalised;
    llm_request r = ask(" an owl on a", 1, 0);
    run(m, &plain, &r);
    assert_int_equal(plain.count, 1);
    char *with = str_fmt(" an owl%s on a", buf_str(&plain.text)); /* its favourite word was there already */
    r.prompt = with;
    run(m, &penalised, &r);
    assert_string_equal(buf_str(&penalised.text), buf_str(&plain.text)); /* still the favourite ... */
    answer_free(&penalised);
    r.presence_penalty = 50;
    run(m, &penalised, &r);
    assert_string_not_equal(buf_str(&penalised.text), buf_str(&plain.text)); /* ... but not against a penalty */
    free(with);
    answer_free(&plain), answer_free(&penalised);
    llm_engine_close(m, NULL);
}

static void cancel_frees_the_slot(void **state) {
    (void)state;
    llm_engine *m = open_slots(1);
    answer running, waiting, next;
    llm_request r = ask("a", -1, 1.0f);
    submit(m, &running, &r);
    submit(m, &waiting, &r);
    r.max_tokens = 3;
    submit(m, &next, &r);
    for (int i = 0; i < 10; i++) llm_engine_step(m);
    assert_true(running.count > 0);
    llm_engine_cancel(m, waiting.id);
    assert_int_equal(waiting.ends, 1);
    assert_int_equal(waiting.why, LLM_CANCELLED);
    assert_int_equal(waiting.starts, 0);
    llm_engine_cancel(m, running.id);
    assert_int_equal(running.ends, 1);
    assert_int_equal(running.why, LLM_CANCELLED);
    assert_int_equal(llm_engine_load(m).running, 0);
    llm_engine_step(m); /* the very next step has the next one */
    assert_int_equal(next.starts, 1);
    run_until_idle(m);
    assert_int_equal(next.count, 3);
    llm_engine_cancel(m, running.id); /* ended long ago */
    llm_engine_cancel(m, 999);
    answer_free(&running), answer_free(&waiting), answer_free(&next);
    llm_engine_close(m, NULL);
}

/* A reader who is behind costs only himself. */
static void slow_reader_sits_out(void **state) {
    (void)state;
    llm_engine *m = open_slots(2);
    answer slow, quick;
    llm_request r = ask("a", 20, 1.0f);
    submit(m, &slow, &r);
    submit(m, &quick, &r);
    for (int i = 0; i < 4; i++) llm_engine_step(m);
    slow.behind = true;
    size_t before = slow.count;
    run_until_idle(m);
    assert_int_equal(quick.ends, 1);
    assert_int_equal(slow.ends, 0);
    assert_int_equal(slow.count, before);
    slow.behind = false;
    run_until_idle(m);
    assert_int_equal(slow.count, 20);
    answer_free(&slow), answer_free(&quick);
    llm_engine_close(m, NULL);
}

static void a_full_context_ends_with_length(void **state) {
    (void)state;
    llm_engine *m = open_slots(1);
    answer a;
    llm_request r = ask("a", -1, 1.0f);
    run(m, &a, &r);
    assert_int_equal(a.why, LLM_LENGTH);
    assert_int_equal(a.usage.prompt_tokens + a.usage.completion_tokens, CTX);
    answer_free(&a);
    r.max_tokens = 0;
    run(m, &a, &r);
    assert_int_equal(a.why, LLM_LENGTH);
    assert_int_equal(a.usage.completion_tokens, 0);
    answer_free(&a);
    llm_engine_close(m, NULL);
}

static void refuses(llm_engine *m, const llm_request *r, int code, const char *says) {
    err e = {0};
    llm_sink sink = {0};
    assert_int_equal(llm_engine_submit(m, r, &sink, &e), 0);
    assert_int_equal(e.code, code);
    if (!strstr(e.msg, says)) fail_msg("'%s' does not say '%s'", e.msg, says);
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    llm_engine *m = open_slots(1);
    char *longest = mem_alloc(4 * CTX + 1, 1);
    memset(longest, '!', 4 * CTX);
    llm_request r = ask(longest, 5, 0);
    refuses(m, &r, ERR_TOO_LARGE, "1025 tokens, but the context is 256");
    free(longest);
    r = ask("a", -2, 0);
    refuses(m, &r, ERR_INVALID, "max_tokens");
    r = ask("a", 5, -1);
    refuses(m, &r, ERR_INVALID, "temperature");
    r = ask("a\xFF", 5, 0);
    refuses(m, &r, ERR_INVALID, "UTF-8");
    r = ask(NULL, 5, 0);
    refuses(m, &r, ERR_INVALID, "messages");
    llm_message who = {.role = "robot", .content = "x"};
    r.messages = &who;
    r.message_count = 1;
    refuses(m, &r, ERR_INVALID, "messages[0].role: 'robot'");
    int32_t strange[] = {5, 100000};
    r = ask("a", 5, 0);
    r.resume = strange;
    r.resume_count = 2;
    refuses(m, &r, ERR_INVALID, "resume[1]: 100000");
    llm_engine_close(m, NULL);
}

static void messages_use_the_template(void **state) {
    (void)state;
    llm_engine *m = open_slots(1);
    llm_message chat[] = {{"developer", "be brief"}, {"user", "hi"}};
    llm_request r = ask(NULL, 20, 0);
    r.messages = chat;
    r.message_count = 2;
    answer a, b;
    run(m, &a, &r);
    llm_request same = ask("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
                           "<|im_start|>assistant\n",
                           20, 0);
    run(m, &b, &same);
    assert_int_equal(a.usage.prompt_tokens, b.usage.prompt_tokens);
    assert_string_equal(buf_str(&a.text), buf_str(&b.text));
    assert_null(strstr(buf_str(&a.text), "<|"));
    answer_free(&a), answer_free(&b);
    llm_engine_close(m, NULL);
}

/* The end-of-turn token ends the answer and is not printed; ignore_eos goes past it. */
static void the_end_of_turn_ends(void **state) {
    (void)state;
    llm_engine *m = open_slots(1);
    bool ended = false;
    for (uint64_t seed = 0; seed < 40 && !ended; seed++) {
        answer a;
        llm_request r = ask("a", -1, 1.5f);
        r.ignore_eos = false;
        r.seed = seed;
        run(m, &a, &r);
        ended = a.why == LLM_STOP;
        if (ended) assert_true(a.usage.prompt_tokens + a.usage.completion_tokens < CTX);
        assert_null(strstr(buf_str(&a.text), "<|im_end|>"));
        answer_free(&a);
    }
    assert_true(ended);
    llm_engine_close(m, NULL);
}

static void closing_ends_what_runs(void **state) {
    (void)state;
    llm_engine *m = open_slots(1);
    answer running, waiting;
    llm_request r = ask("a", -1, 1.0f);
    submit(m, &running, &r);
    submit(m, &waiting, &r);
    for (int i = 0; i < 5; i++) llm_engine_step(m);
    llm_engine_close(m, NULL);
    assert_int_equal(running.ends, 1);
    assert_int_equal(running.e.code, ERR_CANCELLED);
    assert_int_equal(waiting.ends, 1);
    assert_int_equal(waiting.e.code, ERR_CANCELLED);
    answer_free(&running), answer_free(&waiting);
}

/* ---- opening ---- */

static void open_fails(const char *path, const llm_options *o, int code) {
    err e = {0};
    llm_engine *m = llm_engine_open(path, o, NULL, &e);
    assert_null(m);
    if (e.code != code) fail_msg("%s: code %d: %s", path, e.code, e.msg);
    assert_true(strlen(e.msg) > 5);
}

static void broken_files_are_errors(void **state) {
    (void)state;
    buf whole;
    err e;
    char path[64];
    llm_options o = {.n_ctx = 64, .threads = 1, .slots = 1};
    snprintf(path, sizeof path, "/tmp/mysti_broken_%d.gguf", (int)getpid());
    buf_init(&whole, 64 << 20);
    assert_true(file_read(model_path, &whole, &e));
    const size_t lengths[] = {0, 3, 4, 20, 1000, 20000, 60000, whole.len / 2, whole.len - 1};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        assert_true(file_write_atomic(path, whole.data, lengths[i], &e));
        open_fails(path, &o, ERR_FORMAT);
    }
    memcpy(whole.data, "JUNK", 4);
    assert_true(file_write_atomic(path, whole.data, whole.len, &e));
    open_fails(path, &o, ERR_FORMAT);
    remove(path);
    open_fails(path, &o, ERR_NOT_FOUND);
    open_fails("/tmp", &o, ERR_INVALID);
    o.slots = 0;
    open_fails(model_path, &o, ERR_INVALID);
    buf_free(&whole);
}

/* ---- embeddings ---- */

enum { WIDTH = 128 };

typedef struct vectors {
    float v[4][WIDTH];
    int count, n, ends, tokens;
    err e;
} vectors;

static void on_vector(void *ctx, size_t index, const float *v, int n) {
    vectors *out = ctx;
    assert_int_equal(index, out->count);
    assert_true(n <= WIDTH && out->count < 4);
    memcpy(out->v[out->count++], v, (size_t)n * sizeof *v);
    out->n = n;
}

static void on_embedded(void *ctx, int prompt_tokens) {
    vectors *out = ctx;
    out->ends++;
    out->tokens = prompt_tokens;
}

static void on_not_embedded(void *ctx, const err *e) {
    vectors *out = ctx;
    out->ends++;
    out->e = *e;
}

static uint64_t embed(llm_engine *m, const llm_embed_input *in, size_t count, int dimensions, vectors *out, err *e) {
    *out = (vectors){0};
    const llm_embed_request r = {.inputs = in, .count = count, .dimensions = dimensions};
    const llm_embed_sink sink = {.vector = on_vector, .done = on_embedded, .failed = on_not_embedded, .ctx = out};
    return llm_engine_embed(m, &r, &sink, e);
}

static void a_vector_depends_on_its_text_alone(void **state) {
    (void)state;
    static vectors alone, beside;
    answer a, b;
    err e = {0};
    llm_engine *m = open_slots(SLOTS);
    const llm_embed_input texts[] = {{.text = "snow"}, {.text = LONG_PROMPT}, {.text = "snow"}};
    assert_true(embed(m, &texts[1], 1, 0, &alone, &e));
    run_until_idle(m);
    assert_int_equal(alone.count, 1);
    assert_int_equal(alone.n, WIDTH);

    llm_request r = ask(LONG_PROMPT, 40, 1);
    run(m, &a, &r);
    submit(m, &b, &r); /* a stream at the same time: neither changes the other */
    assert_true(embed(m, texts, 3, 0, &beside, &e));
    run_until_idle(m);
    assert_int_equal(beside.count, 3);
    assert_int_equal(beside.ends, 1);
    assert_true(beside.tokens > 2 * LLM_CHUNK);
    assert_memory_equal(beside.v[1], alone.v[0], sizeof alone.v[0]);
    assert_memory_equal(beside.v[0], beside.v[2], sizeof alone.v[0]);
    assert_true(memcmp(beside.v[0], beside.v[1], sizeof alone.v[0]) != 0);
    assert_string_equal(buf_str(&a.text), buf_str(&b.text));
    double square = 0;
    for (int k = 0; k < WIDTH; k++) square += (double)alone.v[0][k] * (double)alone.v[0][k];
    assert_true(square > 0.99999 && square < 1.00001);
    answer_free(&a);
    answer_free(&b);
    llm_engine_close(m, NULL);
}

static void embeddings_can_be_cancelled_and_refused(void **state) {
    (void)state;
    static vectors first, second;
    err e = {0};
    llm_engine *m = open_slots(1);
    const llm_embed_input in = {.text = "snow"};
    const int32_t far[] = {1, 1 << 20}, many[CTX + 1] = {0};
    uint64_t id = embed(m, &in, 1, 0, &first, &e);
    assert_true(id);
    assert_true(embed(m, &in, 1, 3, &second, &e));
    assert_int_equal(llm_engine_load(m).waiting, 2);
    llm_engine_cancel(m, id);
    assert_int_equal(first.e.code, ERR_CANCELLED);
    run_until_idle(m);
    assert_int_equal(first.ends, 1);
    assert_int_equal(second.n, 3);

    assert_false(embed(m, &in, 1, WIDTH + 1, &first, &e));
    assert_int_equal(e.code, ERR_INVALID);
    const llm_embed_input bad[] = {in, {.tokens = far, .token_count = 2}};
    assert_false(embed(m, bad, 2, 0, &first, &e));
    assert_non_null(strstr(e.msg, "input[1][1]: 1048576 is not"));
    const llm_embed_input longer = {.tokens = many, .token_count = CTX + 1};
    assert_false(embed(m, &longer, 1, 0, &first, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_true(embed(m, &in, 1, 0, &first, &e));
    llm_engine_close(m, NULL); /* tells those that wait */
    assert_int_equal(first.ends, 1);
    assert_int_equal(first.e.code, ERR_CANCELLED);
}

/* libllama ends the process when it is asked to go on with a text that such a model has read. */
static void models_without_next_tokens_make_embeddings_only(void **state) {
    (void)state;
    static vectors out;
    const char *path = getenv("MYSTI_TINY_BERT");
    assert_non_null(path);
    const llm_options o = {.n_ctx = CTX, .threads = 1, .slots = 1};
    err e = {0};
    llm_engine *m = llm_engine_open(path, &o, NULL, &e);
    if (!m) fail_msg("%s", e.msg);
    assert_false(llm_engine_describe(m)->generates);
    llm_request r = ask("snow", 4, 0);
    answer a;
    llm_sink sink = sink_of(&a);
    assert_int_equal(llm_engine_submit(m, &r, &sink, &e), 0);
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    const llm_embed_input in = {.text = LONG_PROMPT};
    assert_true(embed(m, &in, 1, 0, &out, &e));
    run_until_idle(m);
    assert_int_equal(out.count, 1);
    assert_int_equal(out.n, WIDTH);
    llm_engine_close(m, NULL);
}

static void too_much_context_names_the_figures(void **state) {
    (void)state;
    err e = {0};
    llm_options o = {.n_ctx = 2000000000, .threads = 1, .slots = 1};
    llm_engine *m = llm_engine_open(model_path, &o, NULL, &e);
    assert_null(m);
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(strstr(e.msg, "2000000000 tokens needs 1024.00 GB")); /* 2 layers x 2 x 64 x 2 bytes per token */
}

static bool refuse_load(void *ctx, float done) {
    (void)done;
    ++*(int *)ctx;
    return false;
}

static void loading_can_be_given_up(void **state) {
    (void)state;
    int calls = 0;
    err e = {0};
    llm_options o = {.n_ctx = 64, .threads = 1, .slots = 1};
    llm_hooks hooks = {.loading = refuse_load, .ctx = &calls};
    assert_null(llm_engine_open(model_path, &o, &hooks, &e));
    assert_int_equal(e.code, ERR_CANCELLED);
    assert_true(calls > 0);
}

static bool stop_computing(void *ctx) {
    return !*(bool *)ctx;
}

static void a_step_can_be_given_up(void **state) {
    (void)state;
    bool stop = false;
    err e = {0};
    llm_options o = {.n_ctx = CTX, .threads = 1, .slots = 1};
    llm_hooks hooks = {.computing = stop_computing, .ctx = &stop};
    llm_engine *m = llm_engine_open(model_path, &o, &hooks, &e);
    assert_non_null(m);
    answer a, b, c;
    llm_request r = ask(LONG_PROMPT, 30, 0);
    run(m, &c, &r);
    submit(m, &a, &r);
    for (int i = 0; i < 6; i++) llm_engine_step(m);
    stop = true;
    llm_engine_step(m);
    assert_int_equal(a.ends, 1);
    assert_int_equal(a.e.code, ERR_CANCELLED);
    stop = false;
    run(m, &b, &r); /* the engine is as good as new */
    assert_string_equal(buf_str(&b.text), buf_str(&c.text));
    answer_free(&a), answer_free(&b), answer_free(&c);
    llm_engine_close(m, NULL);
}

/* For the leak checker: everything is opened, used and closed again. */
static void open_and_close_many_times(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        llm_engine *m = open_slots(2);
        answer a;
        llm_request r = ask("a", 3, 1.0f);
        run(m, &a, &r);
        answer_free(&a);
        llm_engine_close(m, NULL);
    }
}

int main(void) {
    model_path = getenv("MYSTI_TINY_LLM");
    if (!model_path) {
        fprintf(stderr, "MYSTI_TINY_LLM does not name a model made by tools/make_tiny_llm.py\n");
        return 1;
    }
    llama_backend_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(describe_tells_the_model),
        cmocka_unit_test(same_request_same_text),
        cmocka_unit_test(another_seed_another_text),
        cmocka_unit_test(resume_goes_on_identically),
        cmocka_unit_test(resume_at_every_event_keeps_the_text),
        cmocka_unit_test(stop_strings_end_the_text),
        cmocka_unit_test(characters_across_tokens),
        cmocka_unit_test(side_by_side),
        cmocka_unit_test(a_neighbour_does_not_change_the_prompt),
        cmocka_unit_test(more_than_slots_wait_in_order),
        cmocka_unit_test(the_oldest_prompt_is_read_first),
        cmocka_unit_test(penalties_see_the_prompt),
        cmocka_unit_test(cancel_frees_the_slot),
        cmocka_unit_test(slow_reader_sits_out),
        cmocka_unit_test(a_full_context_ends_with_length),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(messages_use_the_template),
        cmocka_unit_test(the_end_of_turn_ends),
        cmocka_unit_test(closing_ends_what_runs),
        cmocka_unit_test(broken_files_are_errors),
        cmocka_unit_test(a_vector_depends_on_its_text_alone),
        cmocka_unit_test(embeddings_can_be_cancelled_and_refused),
        cmocka_unit_test(models_without_next_tokens_make_embeddings_only),
        cmocka_unit_test(too_much_context_names_the_figures),
        cmocka_unit_test(loading_can_be_given_up),
        cmocka_unit_test(a_step_can_be_given_up),
        cmocka_unit_test(open_and_close_many_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
