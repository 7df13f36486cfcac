#include "server/image_sampling.h"

#include "base/file.h"
#include "base/str.h"
#include "diffusion/image/metadata.h"
#include "server/image_fields.h"

#include <stddef.h>

/* `usual` is always allowed, also outside of min .. max. */
typedef struct field {
    const char *key, *alias; /* alias: NULL where there is none */
    const char *label;       /* in A1111's text */
    size_t offset;
    bool whole; /* an int64_t, else a double */
    double min, max, usual;
} field;

#define REAL(name, alias, label, min, max, usual)                                                                      \
    { #name, alias, label, offsetof(image_sampling, name), false, min, max, usual }
#define WHOLE(name, alias, label, min, max, usual)                                                                     \
    { #name, alias, label, offsetof(image_sampling, name), true, min, max, usual }

static const field fields[] = {
    REAL(eta, NULL, "Eta", 0, 1, -1),
    REAL(s_noise, NULL, "Sigma noise", 0, 2, 1),
    REAL(s_churn, NULL, "Sigma churn", 0, 100, 0),
    REAL(s_tmin, NULL, "Sigma tmin", 0, 1000, 0),
    REAL(s_tmax, NULL, "Sigma tmax", 0, 1000, 0),
    REAL(guidance_start, NULL, "Guidance start", 0, 1, 0),
    REAL(guidance_end, NULL, "Guidance end", 0, 1, 1),
    REAL(guidance_rescale, "cfg_rescale", "CFG rescale", 0, 1, 0),
    REAL(dynamic_threshold, NULL, "Dynamic threshold", 0.5, 1, 0),
    REAL(dynamic_threshold_limit, NULL, "Dynamic threshold limit", 0.1, 100, 4),
    REAL(subseed_strength, "variation_strength", "Variation seed strength", 0, 1, 0),
    WHOLE(subseed, "variation_seed", "Variation seed", 0, 9007199254740975.0, -1),
    WHOLE(seed_resize_from_w, NULL, NULL, 64, 4096, 0),
    WHOLE(seed_resize_from_h, NULL, NULL, 64, 4096, 0),
    WHOLE(cache_interval, NULL, "Cache interval", 1, 20, 1),
    WHOLE(diffusion_tile, NULL, "Diffusion tile", 64, 3072, 0),
    WHOLE(diffusion_tile_overlap, NULL, "Diffusion tile overlap", 0, 1536, 64),
    REAL(switch_at, "refiner_switch_at", "Refiner switch at", 0, 1, 0.8),
    WHOLE(eta_noise_seed_delta, "ensd", "ENSD", 0, 2147483647.0, 0),
};

enum { FIELDS = sizeof fields / sizeof *fields };

static bool is_usual_outside(const field *f) {
    return f->usual < f->min || f->usual > f->max;
}

static double get(const image_sampling *s, const field *f) {
    const void *at = (const char *)s + f->offset;
    return f->whole ? (double)*(const int64_t *)at : *(const double *)at;
}

static void set(image_sampling *s, const field *f, double v) {
    void *at = (char *)s + f->offset;
    if (f->whole)
        *(int64_t *)at = (int64_t)v;
    else
        *(double *)at = v;
}

static bool differs(double a, double b) {
    return a < b || a > b;
}

void image_sampling_init(image_sampling *s) {
    for (size_t i = 0; i < FIELDS; i++) set(s, &fields[i], fields[i].usual);
}

static bool read_field(image_sampling *s, const field *f, const char *key, const json_in *body, err *e) {
    const double most = 1e300; /* any number: the usual one is outside of some ranges */
    double v = get(s, f), checked = v;
    int64_t whole = 0;
    if (!field_real(body, key, &v, -most, most, e)) return false;
    if (differs(v, f->usual)) {
        err why = {0};
        const bool ok = f->whole ? field_whole(body, key, &whole, (int64_t)f->min, (int64_t)f->max, &why)
                                 : field_real(body, key, &checked, f->min, f->max, &why);
        if (!ok && is_usual_outside(f)) return err_set(e, (err_code)why.code, "%s, nor %g", why.msg, f->usual);
        if (!ok) return err_set(e, (err_code)why.code, "%s", why.msg);
    }
    set(s, f, v);
    return true;
}

bool image_sampling_read(image_sampling *s, const json_in *body, err *e) {
    for (size_t i = 0; i < FIELDS; i++) {
        const field *f = &fields[i];
        if ((f->alias && !read_field(s, f, f->alias, body, e)) || !read_field(s, f, f->key, body, e)) return false;
    }
    if (!s->seed_resize_from_w != !s->seed_resize_from_h)
        return err_set(e, ERR_INVALID, "seed_resize_from_%s: required with the other side",
                       s->seed_resize_from_w ? "h" : "w");
    return s->guidance_start <= s->guidance_end ||
           err_set(e, ERR_INVALID, "guidance_end: %g is before guidance_start, %g", s->guidance_end, s->guidance_start);
}

void image_sampling_keys(const char **keys) {
    size_t n = 0;
    for (size_t i = 0; i < FIELDS; i++) {
        keys[n++] = fields[i].key;
        if (fields[i].alias) keys[n++] = fields[i].alias;
    }
}

void image_sampling_write(const image_sampling *s, buf *out) {
    for (size_t i = 0; i < FIELDS; i++) {
        const field *f = &fields[i];
        const double v = get(s, f);
        if (!differs(v, f->usual)) continue;
        if (f->whole)
            buf_printf(out, "\"%s\":%lld,", f->key, (long long)v); /* never as 4.5e+15 */
        else
            field_write_real(out, f->key, v);
    }
}

void image_sampling_write_limits(buf *out) {
    for (size_t i = 0; i < FIELDS; i++)
        buf_printf(out, ",\"%s\":[%.16g,%.16g]", fields[i].key, fields[i].min, fields[i].max);
}

void image_sampling_write_also_allowed(buf *out) {
    for (size_t i = 0; i < FIELDS; i++)
        if (is_usual_outside(&fields[i])) buf_printf(out, ",\"%s\":%.16g", fields[i].key, fields[i].usual);
}

void image_sampling_write_metadata(const metadata *m, buf *out) {
    double v;
    int width, height;
    const char *size = metadata_get(m, "Seed resize from");
    for (size_t i = 0; i < FIELDS; i++) {
        const field *f = &fields[i];
        if (f->label && metadata_get_f64(m, f->label, &v) && v >= f->min && v <= f->max)
            buf_printf(out, ",\"%s\":%.16g", f->key, v);
    }
    if (size && str_to_size(size, &width, &height))
        buf_printf(out, ",\"seed_resize_from_w\":%d,\"seed_resize_from_h\":%d", width, height);
}

void image_sampling_draw(image_sampling *s, int64_t end) {
    uint64_t bits;
    if (s->subseed >= 0 || !(s->subseed_strength > 0)) return;
    file_random(&bits, sizeof bits);
    s->subseed = (int64_t)(bits % (uint64_t)end);
}
