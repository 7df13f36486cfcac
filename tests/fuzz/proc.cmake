mysti_fuzz(fuzz_health mysti_proc)
