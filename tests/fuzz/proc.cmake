mysti_fuzz(fuzz_health mysti_proc)
mysti_fuzz(fuzz_elf mysti_proc)
