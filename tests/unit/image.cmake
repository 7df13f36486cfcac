mysti_test(test_image mysti_image)
