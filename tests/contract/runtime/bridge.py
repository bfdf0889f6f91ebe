"""Stands where the daemon would: gives the spawner's socket to the test and lives until the test is done with it."""

import socket
import sys

with socket.socket(socket.AF_UNIX) as meeting:
    meeting.connect(sys.argv[1])
    socket.send_fds(meeting, [b"x"], [int(sys.argv[2])])
    meeting.recv(1)
