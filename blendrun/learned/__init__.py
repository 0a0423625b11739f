"""How fast this machine is, by the steps that its own runs took.

speed = own_speed(key, model_card, machine)    # constants of a step's time: learned where there is something learned
speed.record([sample])                         # what a run's steps add, left to the next one
"""
