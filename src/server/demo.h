/* demo.h - the demo models: what the studio begins with while its user has no model. They are the files of the folder
 * "demo" below the model folder, and ordinary models in every other way. */
#ifndef MYSTI_SERVER_DEMO_H
#define MYSTI_SERVER_DEMO_H

#include <stdbool.h>

/* Whether an id of the index is that of a demo model. NULL is not. */
bool demo_is(const char *model_id);

/* The ids of the image model and of the language model among them, by name the first; NULL where there is none.
 * Freed with free(). */
void demo_find(const char *model_dir, char **image, char **text);

/* Whether there is a model outside of the demo folder that could be loaded. Reads the heads of files until one is
 * found: for the start of the program. */
bool demo_has_rival(const char *model_dir);

#endif
