/* torch_file.h - files that PyTorch's torch.save wrote (.ckpt, .pth, .pt, .bin): the zip archive of today, and the row
 * of pickles of versions before 1.6. No program in them is run (pickle.h). Private to tensor_file.
 *
 * What is looked for is a dictionary of tensors: the whole file, or its "state_dict", "params_ema", "params",
 * "model_state_dict" or "model". Dictionaries within give their entries names with dots. Text and numbers of the outer
 * dictionary become metadata. A tensor whose numbers do not lie in order (a transposed view) is refused by name;
 * several tensors may share their bytes. */
#ifndef MYSTI_DIFFUSION_LOAD_TORCH_FILE_H
#define MYSTI_DIFFUSION_LOAD_TORCH_FILE_H

#include "diffusion/load/tensor_table.h"

bool torch_file_is(const unsigned char *data, size_t size); /* any pickle, or a zip archive */
bool torch_file_read(tensor_table *t, tensor_input *in, err *e);

#endif
