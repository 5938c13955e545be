"""Worker processes: isolated, persistent, attached to the arrays they work on.

::

    caller                                             worker (one of several)
    Processes.run(plan)          supervisor.py         main(), Worker, Rung    worker.py
      staff: replace the dead    member.py
      pack(plan) -> bytes        packing.py
      Load(plan) --------------> channel.py ---------> unpack, attach, keep
      Ring: the doorbell ======> hall.py, place.py ==> machine code, or plan.run_chunk(number)
        or Run(numbers) by pipe  run.py
      collect  <=========================== answered; or Ran(done, failure)
    Processes.submit(...)        desk.py, shift.py
      Attend, Tasks ----------------------------------> unpack, call; Result or Failure for each
"""
