foreach(t db history)
  mysti_test(test_server_${t} mysti_server_core)
endforeach()
