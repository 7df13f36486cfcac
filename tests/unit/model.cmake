mysti_test(test_prompt mysti_diffusion)
mysti_test(test_prompt_plan mysti_diffusion)
mysti_test(test_backend mysti_diffusion)
mysti_test(test_cpu_kernels mysti_cpu_checked m)
target_compile_options(test_cpu_kernels PRIVATE -O2) # its sums in double would take most of a debug build's time
mysti_test(test_tiles mysti_diffusion)
mysti_test(test_upscale mysti_diffusion)
mysti_test(test_networks mysti_diffusion)
mysti_test(test_lora mysti_diffusion)
