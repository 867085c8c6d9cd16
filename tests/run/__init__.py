"""Any program on the fake kernel: ``dmasync run`` with programs in C and C++."""
