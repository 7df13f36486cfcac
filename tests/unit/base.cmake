mysti_test(test_base mysti_base)
mysti_test(test_json mysti_json)
