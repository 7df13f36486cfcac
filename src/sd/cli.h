/* cli.h - the image engine from the command line, without server or HTTP. */
#ifndef MYSTI_SD_CLI_H
#define MYSTI_SD_CLI_H

/* mysti_sd_worker generate --model x.safetensors --prompt "..." -o out.png; argv[0] is "generate". Returns the exit
 * code: 0, 1 when something failed, 2 for wrong usage. */
int cli_generate(int argc, char **argv);

/* mysti_sd_worker convert --model x.ckpt --type q8_0 -o x.gguf; the same of it (docs/model-files.md). */
int cli_convert(int argc, char **argv);

/* One line per device on stdout. */
void cli_list_devices(void);

#endif
