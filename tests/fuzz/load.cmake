mysti_fuzz(fuzz_safetensors mysti_modelfile)
mysti_fuzz(fuzz_gguf mysti_modelfile)
mysti_fuzz(fuzz_image mysti_image)
mysti_fuzz(fuzz_metadata mysti_image)
