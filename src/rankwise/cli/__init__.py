"""The commands, and what they show on a terminal.

May import everything; nothing imports it. No torch before a command needs it.
"""
