"""Huge pages: what Linux has in ``fs/hugetlbfs/`` and ``mm/hugetlb.c``.

=================== ======================================================
``pool.py``         how many are free, and how many of these are promised
``hugetlbfs.py``    memfds of huge pages (``fs/hugetlbfs/inode.c``)
``huge_mapping.py`` their mappings: what a touch, advice, a hole do
=================== ======================================================

It imports ``files`` and the kernel's ``parts``; memfd_create() and mmap() there make what is here.
"""
