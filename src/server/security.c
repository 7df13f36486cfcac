/* security.c - see security.h. */
#include "server/security.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "localhost:1234" -> "localhost", "[::1]:1234" -> "::1". False when it is not a host with an optional port. */
static bool host_name(const char *host, char *out, size_t cap, int64_t *port) {
    *port = 80;
    const char *end;
    if (host[0] == '[') {
        host++;
        end = strchr(host, ']');
        if (!end) return false;
    } else {
        end = host + strcspn(host, ":");
    }
    size_t n = (size_t)(end - host);
    if (n == 0 || n >= cap) return false;
    memcpy(out, host, n);
    out[n] = 0;
    if (*end == ']') end++;
    return *end == 0 || (*end == ':' && str_to_i64(end + 1, port));
}

static bool listed(const char *names, const char *name) {
    size_t n = strlen(name);
    for (const char *at = names; at && *at;) {
        size_t len = strcspn(at, ", ");
        if (len == n && strncasecmp(at, name, n) == 0) return true;
        at += len;
        at += strspn(at, ", ");
    }
    return false;
}

/* Any address of ours may be asked for by number when we listen beyond loopback: a number cannot be rebound. */
static bool is_number(const char *name) {
    return strspn(name, "0123456789.") == strlen(name) || strchr(name, ':');
}

static bool host_allowed(const config *c, const char *host) {
    char name[256];
    int64_t port;
    if (str_empty(host) || !host_name(host, name, sizeof name, &port)) return false;
    if (str_ieq(name, "localhost") || str_iends(name, ".localhost") || config_is_loopback(name) ||
        str_ieq(name, c->listen_ip))
        return true;
    if (!config_is_loopback(c->listen_ip) && is_number(name)) return true;
    return listed(c->allow_host, name);
}

/* "http://localhost:1234" against "localhost:1234". */
static bool same_origin(const char *origin, const char *host) {
    const char *rest = str_starts(origin, "http://") ? origin + 7 : str_starts(origin, "https://") ? origin + 8 : NULL;
    return rest && str_ieq(rest, host);
}

static bool is_safe(const char *method) {
    return str_eq(method, "GET") || str_eq(method, "HEAD");
}

static bool body_type_allowed(http_req *req) {
    const char *length = http_req_header(req, "Content-Length");
    bool has_body = http_req_header(req, "Transfer-Encoding") || (length && !str_eq(length, "0"));
    if (!has_body) return true;
    const char *type = http_req_header(req, "Content-Type");
    char base[64];
    size_t n = type ? strcspn(type, "; \t") : 0;
    if (n == 0 || n >= sizeof base) return false;
    memcpy(base, type, n);
    base[n] = 0;
    return str_ieq(base, "application/json") || str_ieq(base, "multipart/form-data");
}

/* Compares without telling by its time how much was right. */
static bool same_secret(const char *a, size_t n, const char *b) {
    size_t m = strlen(b);
    unsigned diff = n != m;
    for (size_t i = 0; i < n; i++) diff |= (unsigned)(unsigned char)a[i] ^ (unsigned)(unsigned char)b[m ? i % m : 0];
    return diff == 0;
}

static bool has_key(const config *c, const http_req *req) {
    const char *auth = http_req_header(req, "Authorization");
    if (auth && strncasecmp(auth, "Bearer ", 7) == 0) return same_secret(auth + 7, strlen(auth + 7), c->api_key);
    for (const char *at = http_req_header(req, "Cookie"); at && *at;) {
        size_t n = strcspn(at, ";");
        if (str_starts(at, "mysti_key=")) return same_secret(at + 10, n - 10, c->api_key);
        at += n;
        at += strspn(at, "; ");
    }
    return false;
}

static bool needs_key(const char *path) {
    return str_starts(path, "/v1/") || str_starts(path, "/sdapi/") || str_starts(path, "/outputs/");
}

bool security_check(const config *c, http_req *req) {
    const char *host = http_req_header(req, "Host"), *origin = http_req_header(req, "Origin"),
               *method = http_req_method(req);
    if (!host_allowed(c, host)) {
        http_reply_error(req, 403, "host_not_allowed", NULL,
                         "this server does not answer to the name '%.100s'; see --allow-host", host ? host : "");
        return false;
    }
    if (origin && !is_safe(method) && !same_origin(origin, host)) {
        http_reply_error(req, 403, "origin_not_allowed", NULL, "requests from '%.100s' are not allowed", origin);
        return false;
    }
    if (!body_type_allowed(req)) {
        http_reply_error(req, 415, "unsupported_media_type", NULL,
                         "Content-Type must be application/json (or multipart/form-data for uploads)");
        return false;
    }
    bool asks_what_is_allowed = str_eq(method, "OPTIONS"); /* browsers send no key with it */
    if (c->api_key && !asks_what_is_allowed && needs_key(http_req_path(req)) && !has_key(c, req)) {
        http_header_add(req, "WWW-Authenticate", "Bearer");
        http_reply_error(req, 401, "invalid_api_key", NULL, "an API key is needed: Authorization: Bearer KEY");
        return false;
    }
    return true;
}
