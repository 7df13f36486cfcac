/* security.h - who may ask what: Host and Origin, content type, API key. */
#ifndef MYSTI_SERVER_SECURITY_H
#define MYSTI_SERVER_SECURITY_H

#include "net/http_req.h"
#include "server/config.h"

/* For on_headers, before any route: true when the request may go on; false when it has been answered (401, 403, 415).
 *  - Host must be a loopback name, the address listened on, or one of --allow-host: no DNS rebinding.
 *  - An Origin, if any, must be this very server ("null" is foreign), except for plain GETs.
 *  - A POST, PUT, PATCH or DELETE with a body must be JSON or multipart: no cross-site forms.
 *  - With an API key, everything below /v1 and /outputs needs it: "Authorization: Bearer KEY" or the cookie mysti_key.
 */
bool security_check(const config *c, http_req *req);

#endif
