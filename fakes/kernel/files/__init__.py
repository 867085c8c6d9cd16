"""Files: what Linux has in ``fs/`` and ``mm/``. It imports the kernel's ``parts`` and no driver.

=================== ===============================================
``file.py``         an open file, and what the VFS says for it
``descriptors.py``  the table of descriptors (``fs/file.c``)
``ioctl.py``        requests that every file answers (``fs/ioctl.c``)
``memfd.py``        memfds and seals (``mm/memfd.c``, ``mm/shmem.c``)
``memfd_create.py`` memfd_create() (``mm/memfd.c``)
``mmap.py``         mmap up to the driver (``mm/mmap.c``)
``mapped.py``       madvise and msync of a mapping (``mm/madvise.c``)
``vmas.py``         the parts that advice splits it into (``mm/vma.c``)
``proc_fd.py``      open files opened again (``fs/proc/fd.c``)
=================== ===============================================
"""
