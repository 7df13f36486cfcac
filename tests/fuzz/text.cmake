mysti_fuzz(fuzz_prompt mysti_prompt)
