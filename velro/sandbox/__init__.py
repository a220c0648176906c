"""A provider of our own that speaks fal's queue protocol, draws real pictures and fails on command.

Everything a provider does to Velro can be had here on purpose: links that die, answers that never
come, callbacks that are withheld or forged. Meant for loopback: whoever reaches it may tell it so.
"""
