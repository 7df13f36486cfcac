/* schema.h - the tables of the server's database, as a list of migrations. */
#ifndef MYSTI_SERVER_SCHEMA_H
#define MYSTI_SERVER_SCHEMA_H

/* schema_migrations[i] leads from user_version i to i + 1. Never change one that was released: append. */
extern const char *const schema_migrations[];
extern const int schema_version; /* how many there are */

#endif
