foreach(t db history jobs)
  mysti_test(test_server_${t} mysti_server_core)
endforeach()
