mysti_fuzz(fuzz_http mysti_net)
mysti_fuzz(fuzz_http_server mysti_net)
mysti_fuzz(fuzz_multipart mysti_net)
mysti_fuzz(fuzz_json mysti_json)
