foreach(t crashes db history jobs events image_params models routes)
  mysti_test(test_server_${t} mysti_server_core)
endforeach()
