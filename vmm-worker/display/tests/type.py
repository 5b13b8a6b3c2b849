"""Connects by gtk-vnc's library, types an A and presses a button, until it is ended: type.py HOST PORT PASSWORD."""
import sys

import gi

gi.require_version("GVnc", "1.0")
from gi.repository import GLib, GVnc  # noqa: E402

VNC_AUTHENTICATION = 2


def give_password(connection, _kinds):
    connection.set_credential(GVnc.ConnectionCredential.PASSWORD, sys.argv[3])


def use(connection):
    for pressed in (True, False):
        connection.key_event(pressed, ord("a"), 0x1E)
    connection.pointer_event(1, 799, 599)


loop = GLib.MainLoop()
connection = GVnc.Connection()
connection.connect("vnc-auth-choose-type", lambda one, _: one.set_auth_type(VNC_AUTHENTICATION))
connection.connect("vnc-auth-credential", give_password)
connection.connect("vnc-initialized", use)
connection.connect("vnc-auth-failure", lambda _, why: print(f"refused: {why}"))
connection.connect("vnc-disconnected", lambda _: loop.quit())
connection.open_host(sys.argv[1], sys.argv[2])
loop.run()
