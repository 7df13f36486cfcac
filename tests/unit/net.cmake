mysti_test(test_http_uri mysti_net)
mysti_test(test_http_parse mysti_net)
mysti_test(test_http_server mysti_net)
mysti_test(test_http_client mysti_net)
