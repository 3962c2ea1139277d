/* The machine's own limit: PROCESSES loops that spawn /bin/true and wait for it, TASKS in all.
   spawnloop PROCESSES TASKS   prints wall seconds and CPU seconds (the loops and the tasks). */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void loop(int tasks) {
    char *arguments[] = {"/bin/true", NULL};
    for (int done = 0; done < tasks; done++) {
        pid_t task;
        int status;
        if (posix_spawn(&task, arguments[0], NULL, NULL, arguments, environ))
            _exit(1);
        if (waitpid(task, &status, 0) != task || status)
            _exit(1);
    }
    _exit(0);
}

static double seconds(struct timeval time) { return time.tv_sec + time.tv_usec / 1e6; }

int main(int count, char **arguments) {
    if (count != 3)
        return 2;
    int processes = atoi(arguments[1]), tasks = atoi(arguments[2]), status, failed = 0;
    struct timespec begin, end;
    struct rusage used;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int number = 0; number < processes; number++)
        if (fork() == 0)
            loop(tasks / processes);
    for (int number = 0; number < processes; number++)
        failed |= wait(&status) < 0 || status;
    clock_gettime(CLOCK_MONOTONIC, &end);
    getrusage(RUSAGE_CHILDREN, &used);
    printf("%.6f %.6f\n", (end.tv_sec - begin.tv_sec) + (end.tv_nsec - begin.tv_nsec) / 1e9,
           seconds(used.ru_utime) + seconds(used.ru_stime));
    return failed;
}
